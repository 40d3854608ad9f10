//! Parameters and members of objects as a list: name, type, whether it must be there, what it means.

use std::fmt::Write as _;

use serde_json::Value;

use super::document::text;

/// How deep members of members are listed: beyond, the type says `object`.
const DEPTH_MAX: usize = 4;

/// The parameters, as a list in Markdown.
pub(super) fn of_parameters(parameters: &[Value]) -> String {
    let mut list = String::new();
    for parameter in parameters {
        let field = Field {
            name: text(parameter, "name"),
            schema: &parameter["schema"],
            description: text(parameter, "description"),
            example: parameter.get("example"),
            is_required: parameter["required"] == true,
        };
        field.write(&mut list, 0);
    }
    list
}

/// The members of a schema's objects, as a list in Markdown.
pub(super) fn of_schema(schema: &Value) -> String {
    let mut list = String::new();
    members(schema, &mut list, 0);
    list
}

/// One entry of the list.
struct Field<'a> {
    name: &'a str,
    schema: &'a Value,
    description: &'a str,
    example: Option<&'a Value>,
    is_required: bool,
}

impl Field<'_> {
    fn write(&self, list: &mut String, depth: usize) {
        let margin = "  ".repeat(depth);
        let required = if self.is_required { " **required**" } else { "" };
        let _ = writeln!(
            list,
            "{margin}- **`{}`** `{}`{required}\n",
            self.name,
            type_of(self.schema)
        );
        let described = [self.description.to_owned(), self.bounds(), self.examples()];
        for paragraph in described.iter().flat_map(|text| text.lines()) {
            let line = format!("{margin}  {paragraph}");
            let _ = writeln!(list, "{}", line.trim_end());
        }
        list.push('\n');
        if depth + 1 < DEPTH_MAX {
            members(self.schema, list, depth + 1);
        }
    }

    /// What the schema says of values, in sentences.
    fn bounds(&self) -> String {
        let said = |keyword: &str, before: &str, after: &str| {
            let value = self.schema.get(keyword)?;
            Some(format!("{before} `{value}`{after}."))
        };
        let words = self.schema["enum"].as_array().filter(|words| words.len() > 1);
        let words = words.map(|words| {
            let words: Vec<String> = words.iter().map(|word| format!("`{}`", bare(word))).collect();
            format!("One of {}.", words.join(", "))
        });
        let sentences = [
            words,
            said("default", "Default", ""),
            said("minimum", "At least", ""),
            said("maximum", "At most", ""),
            said("maxLength", "At most", " characters"),
            said("maxItems", "At most", " entries"),
        ];
        let sentences: Vec<String> = sentences.into_iter().flatten().collect();
        if sentences.is_empty() {
            String::new()
        } else {
            format!("\n{}", sentences.join(" "))
        }
    }

    fn examples(&self) -> String {
        let has_default = self.schema.get("default").is_some();
        let example = self.example.or_else(|| self.schema["examples"].get(0));
        match example.filter(|_| !has_default) {
            Some(example) => format!("\nExample: `{}`", bare(example)),
            None => String::new(),
        }
    }
}

fn members(schema: &Value, list: &mut String, depth: usize) {
    let schema = if schema["items"].is_object() {
        &schema["items"]
    } else {
        schema
    };
    let required = schema["required"].as_array();
    for (name, member) in schema["properties"].as_object().into_iter().flatten() {
        let field = Field {
            name,
            schema: member,
            description: text(member, "description"),
            example: None,
            is_required: required.is_some_and(|required| required.contains(&Value::from(name.as_str()))),
        };
        field.write(list, depth);
    }
}

/// The type in the words of a reader: `string<uuid>`, `string[] | null`.
fn type_of(schema: &Value) -> String {
    let one = |name: &str| match name {
        "array" => format!("{}[]", type_of(&schema["items"])),
        "string" | "integer" | "number" => match schema["format"].as_str() {
            Some(format) => format!("{name}<{format}>"),
            None => name.to_owned(),
        },
        other => other.to_owned(),
    };
    if let Some(name) = schema["type"].as_str() {
        return one(name);
    }
    if let Some(names) = schema["type"].as_array() {
        let names: Vec<String> = names.iter().filter_map(Value::as_str).map(one).collect();
        return names.join(" | ");
    }
    let choices = ["oneOf", "anyOf"]
        .into_iter()
        .find_map(|keyword| schema[keyword].as_array());
    match choices {
        Some(choices) => choices.iter().map(type_of).collect::<Vec<_>>().join(" | "),
        None => "any".to_owned(),
    }
}

/// A value without the quotation marks of a text.
fn bare(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
