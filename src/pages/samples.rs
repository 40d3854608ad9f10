//! Requests as code: the same one with curl and in four languages, each with what its users have at hand.

use serde_json::Value;

use super::document::{Operation, examples};

/// A piece of code with its title.
#[derive(Debug)]
pub(super) struct Sample {
    /// What it is.
    pub(super) title: String,
    /// The language, as a fence names it.
    pub(super) language: &'static str,
    /// The code.
    pub(super) code: String,
}

/// A request that is written as code.
struct Request {
    method: String,
    url: String,
    takes_token: bool,
    body: Option<String>,
}

/// The operation as it is called, with the examples of its required parameters and its first body.
pub(super) fn samples(operation: &Operation<'_>, base: &str) -> Vec<Sample> {
    let mut path = operation.path.to_owned();
    for parameter in operation.parameters("path") {
        let (name, example) = (&parameter["name"], &parameter["example"]);
        if let (Some(name), Some(example)) = (name.as_str(), example.as_str()) {
            path = path.replace(&format!("{{{name}}}"), example);
        }
    }
    let body = operation
        .body()
        .and_then(|content| examples(&content).into_iter().next());
    let request = Request {
        method: operation.method.clone(),
        url: format!("{base}{path}"),
        takes_token: operation.takes_token(),
        body: body.map(|(_, example)| pretty(&example)),
    };
    [
        ("curl", "sh", request.curl()),
        ("Python", "python", request.python()),
        ("TypeScript", "typescript", request.typescript()),
        ("Go", "go", request.go()),
        ("Rust", "rust", request.rust()),
    ]
    .map(|(title, language, code)| Sample {
        title: title.to_owned(),
        language,
        code,
    })
    .into()
}

/// JSON as people read it.
pub(super) fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

impl Request {
    fn curl(&self) -> String {
        let mut lines = vec![
            format!("curl --request {}", self.method),
            format!("--url '{}'", self.url),
        ];
        if self.takes_token {
            lines.push("--header \"Authorization: Bearer $TOKEN\"".to_owned());
        }
        if let Some(body) = &self.body {
            lines.push("--header 'Content-Type: application/json'".to_owned());
            // A quotation mark ends the text of a shell, and begins again after an escaped one.
            lines.push(format!("--data '{}'", body.replace('\'', r"'\''")));
        }
        lines.join(" \\\n  ")
    }

    /// With the standard library alone.
    fn python(&self) -> String {
        let mut lines = vec!["import os, urllib.request".to_owned(), String::new()];
        if let Some(body) = &self.body {
            lines.push(format!("body = r\"\"\"{body}\"\"\""));
        }
        lines.push("request = urllib.request.Request(".to_owned());
        lines.push(format!("    \"{}\",", self.url));
        lines.push(format!("    method=\"{}\",", self.method));
        let mut headers = Vec::new();
        if self.takes_token {
            headers.push("\"Authorization\": f\"Bearer {os.environ['TOKEN']}\"");
        }
        if self.body.is_some() {
            lines.push("    data=body.encode(),".to_owned());
            headers.push("\"Content-Type\": \"application/json\"");
        }
        lines.push(format!("    headers={{{}}},", headers.join(", ")));
        lines.extend(
            [
                ")",
                "with urllib.request.urlopen(request) as response:",
                "    print(response.read().decode())",
            ]
            .map(str::to_owned),
        );
        lines.join("\n")
    }

    /// With `fetch`, which browsers and Node.js have.
    fn typescript(&self) -> String {
        let mut headers = Vec::new();
        if self.takes_token {
            headers.push("Authorization: `Bearer ${process.env.TOKEN}`");
        }
        if self.body.is_some() {
            headers.push("\"Content-Type\": \"application/json\"");
        }
        let mut lines = vec![format!("const response = await fetch(\"{}\", {{", self.url)];
        lines.push(format!("  method: \"{}\",", self.method));
        if !headers.is_empty() {
            lines.push(format!("  headers: {{ {} }},", headers.join(", ")));
        }
        if let Some(body) = &self.body {
            lines.push(format!("  body: JSON.stringify({}),", body.replace('\n', "\n  ")));
        }
        lines.push("});".to_owned());
        lines.push("console.log(response.status, await response.text());".to_owned());
        lines.join("\n")
    }

    /// With the standard library alone.
    fn go(&self) -> String {
        let body = match &self.body {
            // A raw text of Go holds everything but its own mark.
            Some(body) => format!("strings.NewReader(`{}`)", body.replace('`', "` + \"`\" + `")),
            None => "nil".to_owned(),
        };
        let mut imports = vec!["fmt", "io", "net/http"];
        let mut lines = Vec::new();
        if self.takes_token {
            imports.push("os");
            lines.push("request.Header.Set(\"Authorization\", \"Bearer \"+os.Getenv(\"TOKEN\"))");
        }
        if self.body.is_some() {
            imports.push("strings");
            lines.push("request.Header.Set(\"Content-Type\", \"application/json\")");
        }
        let imports: Vec<String> = imports.iter().map(|name| format!("\t\"{name}\"")).collect();
        let lines: Vec<String> = lines.iter().map(|line| format!("\t{line}\n")).collect();
        format!(
            "package main\n\nimport (\n{}\n)\n\nfunc main() {{\n\trequest, err := http.NewRequest(\"{}\", \"{}\", {body})\n\tif err != nil {{\n\t\tpanic(err)\n\t}}\n{}\tresponse, err := http.DefaultClient.Do(request)\n\tif err != nil {{\n\t\tpanic(err)\n\t}}\n\tdefer response.Body.Close()\n\ttext, _ := io.ReadAll(response.Body)\n\tfmt.Println(response.Status, string(text))\n}}",
            imports.join("\n"),
            self.method,
            self.url,
            lines.concat(),
        )
    }

    /// With reqwest.
    fn rust(&self) -> String {
        let mut lines = vec![
            "// reqwest = \"0.12\", tokio = { version = \"1\", features = [\"full\"] }".to_owned(),
            "#[tokio::main]".to_owned(),
            "async fn main() -> Result<(), Box<dyn std::error::Error>> {".to_owned(),
            "    let response = reqwest::Client::new()".to_owned(),
            format!("        .request(reqwest::Method::{}, \"{}\")", self.method, self.url),
        ];
        if self.takes_token {
            lines.push("        .bearer_auth(std::env::var(\"TOKEN\")?)".to_owned());
        }
        if let Some(body) = &self.body {
            lines.push("        .header(\"Content-Type\", \"application/json\")".to_owned());
            lines.push(format!("        .body(r#\"{body}\"#)"));
        }
        lines.extend(
            [
                "        .send()",
                "        .await?;",
                "    println!(\"{} {}\", response.status(), response.text().await?);",
                "    Ok(())",
                "}",
            ]
            .map(str::to_owned),
        );
        lines.join("\n")
    }
}
