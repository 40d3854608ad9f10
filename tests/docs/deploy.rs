//! deploy/: each file can be read, and what it says of options, ports, paths and times is what the program has.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use clap::{Arg, Command, CommandFactory as _, Parser as _};
use kallima_webhooks::{
    cli::Cli,
    config::{METRICS_LISTEN, ServeOptions},
};
use serde::Deserialize as _;
use serde_json::Value;

use super::{read, root};

/// How much longer a node that stops may take than its shutdown delay and an attempt.
const STOP_MARGIN: Duration = Duration::from_secs(10);

/// The files below deploy/, each with its text.
fn files() -> BTreeMap<String, String> {
    let mut folders = vec![PathBuf::from("deploy")];
    let mut found = BTreeMap::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else {
                let name = path.to_str().unwrap().to_owned();
                let text = read(&name);
                found.insert(name, text);
            }
        }
    }
    found
}

/// The documents of a YAML file.
fn documents(text: &str) -> Vec<Value> {
    let documents = serde_norway::Deserializer::from_str(text);
    let read = |document| {
        let mut value = serde_norway::Value::deserialize(document).unwrap();
        value.apply_merge().unwrap();
        serde_json::to_value(value).unwrap()
    };
    documents.map(read).collect()
}

fn kubernetes(kind: &str) -> Value {
    let documents = documents(&read("deploy/kubernetes/kallima-webhooks.yaml"));
    documents.into_iter().find(|document| document["kind"] == kind).unwrap()
}

fn compose() -> Value {
    documents(&read("deploy/compose.yaml")).remove(0)
}

/// The options of every command that variables set, by variable.
fn variables(command: &Command) -> BTreeMap<String, Arg> {
    let own = command.get_arguments().filter_map(|option| {
        let variable = option.get_env()?.to_str()?.to_owned();
        Some((variable, option.clone()))
    });
    let mut found: BTreeMap<_, _> = own.collect();
    for below in command.get_subcommands() {
        found.extend(variables(below));
    }
    found
}

fn flags(command: &Command) -> Vec<String> {
    let own = command
        .get_arguments()
        .filter_map(|option| option.get_long().map(|name| format!("--{name}")));
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

/// The words of a text that begin with `prefix`, and continue with these letters.
fn words<'a>(text: &'a str, prefix: &'a str, letters: fn(char) -> bool) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).map(move |(start, _)| {
        let rest = &text[start + prefix.len()..];
        let end = rest.find(|letter| !letters(letter)).unwrap_or(rest.len());
        &text[start..start + prefix.len() + end]
    })
}

/// What a file sets: variables of ours with their values.
fn settings(name: &str) -> BTreeMap<String, String> {
    let pairs = |object: &Value| -> BTreeMap<String, String> {
        let members = object.as_object().unwrap().iter();
        let text = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.to_owned()));
        members.filter_map(text).collect()
    };
    match name {
        "deploy/compose.yaml" => pairs(&compose()["services"]["kallima-webhooks"]["environment"]),
        "deploy/kubernetes/kallima-webhooks.yaml" => {
            let deployment = kubernetes("Deployment");
            let list = &deployment["spec"]["template"]["spec"]["containers"][0]["env"];
            let pair = |entry: &Value| Some((entry["name"].as_str()?.to_owned(), entry["value"].as_str()?.to_owned()));
            list.as_array().unwrap().iter().filter_map(pair).collect()
        }
        name => {
            let text = read(name);
            // Also those that are commented out, and those of an image.
            let lines = text
                .lines()
                .map(|line| line.trim_start_matches(['#', ' ']).trim_start_matches("ENV "));
            let pairs = lines.filter_map(|line| line.trim_end_matches([' ', '\\']).split_once('='));
            let ours = pairs.filter(|(name, _)| name.starts_with("KALLIMA_"));
            ours.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        }
    }
}

/// The files that set options.
const SETTERS: [&str; 4] = [
    "deploy/Containerfile",
    "deploy/compose.yaml",
    "deploy/kubernetes/kallima-webhooks.yaml",
    "deploy/systemd/kallima-webhooks.env",
];

/// The options as a file sets them; what it leaves to others is as it is by default.
fn configured(name: &str) -> ServeOptions {
    #[derive(clap::Parser)]
    struct Arguments {
        #[command(flatten)]
        serve: ServeOptions,
    }
    let own = variables(&Arguments::command());
    let given = settings(name).into_iter().filter_map(|(variable, value)| {
        let flag = own.get(&variable)?.get_long()?.to_owned();
        Some(format!("--{flag}={value}"))
    });
    let arguments = std::iter::once("serve".to_owned()).chain(given);
    Arguments::try_parse_from(arguments)
        .unwrap_or_else(|fault| panic!("{name}: {fault}"))
        .serve
}

#[test]
fn every_file_can_be_read() {
    let files = files();
    for wanted in SETTERS
        .into_iter()
        .chain(["deploy/nginx/kallima-webhooks.conf", "deploy/caddy/Caddyfile"])
    {
        assert!(files.contains_key(wanted), "there is no {wanted}");
    }
    for (name, text) in files {
        match name.rsplit_once('.').unwrap_or_default().1 {
            "yaml" => assert!(documents(&text).iter().all(Value::is_object), "{name}"),
            "json" => drop(serde_json::from_str::<Value>(&text).unwrap_or_else(|fault| panic!("{name}: {fault}"))),
            _ => {
                let (opened, closed) = (text.matches('{').count(), text.matches('}').count());
                assert_eq!(opened, closed, "braces in {name}");
            }
        }
    }
}

#[test]
fn every_option_is_one_of_the_program_and_takes_its_value() {
    let mut command = Cli::command();
    command.build();
    let (known, flags) = (variables(&command), flags(&command));
    for (name, text) in files() {
        let is_letter = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
        for word in words(&text, "KALLIMA_", is_letter) {
            assert!(known.contains_key(word), "{name}: there is no variable {word}");
        }
        // Flags of other programs are in their own lines.
        let theirs = [
            "podman",
            "docker",
            "cargo",
            "apt-get",
            "HEALTHCHECK",
            "--config",
            "--from",
            "--profile",
        ];
        for line in text
            .lines()
            .filter(|line| !theirs.iter().any(|word| line.contains(word)))
        {
            for word in words(line, "--", |letter| letter.is_ascii_lowercase() || letter == '-') {
                assert!(
                    word.len() == 2 || word.starts_with("---") || flags.iter().any(|flag| flag == word),
                    "{name}: there is no option {word}"
                );
            }
        }
    }
    for name in SETTERS {
        let settings = settings(name);
        assert!(settings.len() >= 3, "{name}: {settings:?}");
        for (variable, value) in settings {
            let flag = known[&variable].get_long().unwrap();
            let parsed = Cli::try_parse_from(["kallima-webhooks".to_owned(), format!("--{flag}={value}")]);
            assert!(parsed.is_ok(), "{name}: {variable}={value}: {}", parsed.unwrap_err());
        }
    }
}

#[test]
fn ports_are_those_that_the_program_listens_on() {
    let default = {
        let command = Cli::command();
        let listen = &variables(&command)["KALLIMA_LISTEN"];
        let address = listen.get_default_values()[0].to_str().unwrap().to_owned();
        address.rsplit_once(':').unwrap().1.to_owned()
    };
    let metrics = METRICS_LISTEN.port().to_string();
    for name in SETTERS {
        let options = configured(name);
        assert_eq!(options.listen.port().to_string(), default, "{name}");
        let listens = settings(name)["KALLIMA_METRICS_LISTEN"].ends_with(&format!(":{metrics}"));
        assert!(listens, "{name}");
    }
    let says = |name: &str, text: &str| assert!(read(name).contains(text), "{name} does not say {text:?}");
    says("deploy/Containerfile", &format!("EXPOSE {default} {metrics}\n"));
    says(
        "deploy/nginx/kallima-webhooks.conf",
        &format!("server 127.0.0.1:{default};"),
    );
    says("deploy/caddy/Caddyfile", &format!("reverse_proxy 127.0.0.1:{default} "));
    says("deploy/prometheus/prometheus.yaml", &format!(":{metrics}"));
    let published = &compose()["services"]["kallima-webhooks"]["ports"][0];
    assert_eq!(*published, format!("127.0.0.1:{default}:{default}"));
    let pod = kubernetes("Deployment")["spec"]["template"].clone();
    let ports = &pod["spec"]["containers"][0]["ports"];
    assert_eq!(ports[0]["containerPort"].to_string(), default);
    assert_eq!(ports[1]["containerPort"].to_string(), metrics);
    assert_eq!(pod["metadata"]["annotations"]["prometheus.io/port"], metrics);
}

#[test]
fn probes_ask_what_the_document_has() {
    let document: Value = serde_norway::from_str(&read("openapi.yaml")).unwrap();
    let probe = |path: &str| assert!(document["paths"][path]["get"].is_object(), "no such path: {path}");
    let deployment = kubernetes("Deployment");
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    for (name, expected) in [
        ("startupProbe", "/healthz"),
        ("livenessProbe", "/healthz"),
        ("readinessProbe", "/readyz"),
    ] {
        let path = container[name]["httpGet"]["path"].as_str().unwrap();
        assert_eq!(path, expected, "{name}");
        assert_eq!(
            container[name]["httpGet"]["port"], container["ports"][0]["name"],
            "{name}"
        );
        probe(path);
    }
    let nginx = read("deploy/nginx/kallima-webhooks.conf");
    for path in words(&nginx, "location = ", |letter| !letter.is_whitespace()) {
        probe(path.trim_start_matches("location = "));
    }
    let caddy = read("deploy/caddy/Caddyfile");
    let asked = words(&caddy, "health_uri ", |letter| !letter.is_whitespace())
        .next()
        .unwrap();
    probe(asked.trim_start_matches("health_uri "));
    let image = read("deploy/Containerfile");
    let check = image.lines().find_map(|line| line.split_once("HEALTHCHECK")).unwrap().1;
    let check: Vec<String> = serde_json::from_str(check.split_once("CMD ").unwrap().1).unwrap();
    Cli::try_parse_from(&check).unwrap_or_else(|fault| panic!("{check:?}: {fault}"));
}

#[test]
fn nginx_does_not_log_the_addresses_of_dashboard_links() {
    let nginx = read("deploy/nginx/kallima-webhooks.conf");
    let (_, location) = nginx.split_once("location /dashboard/link {").unwrap();
    assert!(location.split('}').next().unwrap().contains("access_log off;"));
}

#[test]
fn whoever_stops_a_node_waits_for_as_long_as_it_may_take() {
    let grace = |name: &str| {
        let options = configured(name);
        (options.shutdown_delay() + options.engine.attempt_timeout() + STOP_MARGIN).as_secs()
    };
    let pod = &kubernetes("Deployment")["spec"]["template"]["spec"];
    assert_eq!(
        pod["terminationGracePeriodSeconds"],
        grace("deploy/kubernetes/kallima-webhooks.yaml")
    );
    let container = &compose()["services"]["kallima-webhooks"];
    assert_eq!(
        container["stop_grace_period"],
        format!("{}s", grace("deploy/compose.yaml"))
    );
    let unit = read("deploy/systemd/kallima-webhooks.service");
    let expected = format!("\nTimeoutStopSec={}\n", grace("deploy/systemd/kallima-webhooks.env"));
    assert!(unit.contains(&expected), "{expected}");
}

#[test]
fn proxies_give_up_later_than_requests_and_idle_connections_sooner() {
    let options = configured("deploy/systemd/kallima-webhooks.env");
    let longest = options.http.body_read_timeout() + options.engine.attempt_timeout() + Duration::from_secs(30);
    let idle = options.http.idle_timeout();
    for (name, waits, keeps) in [
        (
            "deploy/nginx/kallima-webhooks.conf",
            "proxy_read_timeout ",
            "keepalive_timeout ",
        ),
        ("deploy/caddy/Caddyfile", "response_header_timeout ", "keepalive "),
    ] {
        let text = read(name);
        let seconds = |word: &str| {
            let found = words(&text, word, |letter| letter.is_ascii_digit()).next().unwrap();
            Duration::from_secs(found.trim_start_matches(word).parse().unwrap())
        };
        assert!(seconds(waits) > longest, "{name}: {waits}");
        assert!(seconds(keeps) < idle, "{name}: {keeps}");
    }
    assert!(
        !options.trusted_proxies.is_empty(),
        "the samples say that it trusts them"
    );
}

#[test]
fn the_image_is_built_by_the_oldest_toolchain_that_is_promised() {
    let manifest = read("Cargo.toml");
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = \""))
        .unwrap();
    let version = version.trim_end_matches('"');
    let image = read("deploy/Containerfile");
    assert!(
        image.contains(&format!("docker.io/library/rust:{version}-")),
        "{version}"
    );
}
