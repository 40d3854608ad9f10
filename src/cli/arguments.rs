//! Reading the command line and the environment. Every fault in them is reported at once, one line each, before anything is
//! opened.

use std::{collections::HashSet, error::Error as _, ffi::OsString, num::ParseIntError};

use clap::{
    Arg, ArgMatches, Command, CommandFactory as _, Error, FromArgMatches as _,
    builder::Resettable,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use super::{Cli, own_options, print_config::redacted};

/// The prefix of our environment variables.
const PREFIX: &str = "KALLIMA_";

/// How similar two names must be for one to count as a typo of the other: six letters of ten.
const TYPO_SIMILARITY_MIN: f64 = 0.6;

/// What was given, and the faults in it.
pub(super) struct Reading {
    /// The command with its options; `None` if the faults leave it undetermined.
    pub(super) given: Option<(Command, ArgMatches, Cli)>,
    /// The faults, one line each.
    pub(super) faults: Vec<String>,
}

/// Reads the command line and the environment. For `--help` and `--version`, and for a command line that makes no sense at
/// all, prints what clap prints and ends the process.
pub(super) fn read() -> Reading {
    let mut arguments: Vec<OsString> = std::env::args_os().collect();
    let mut faults = Vec::new();
    let mut ignored = HashSet::new();
    loop {
        let mut command = own_options::build(without_variables(Cli::command(), &ignored));
        let parsed = command.try_get_matches_from_mut(&arguments);
        let parsed = parsed.and_then(|matches| Cli::from_arg_matches(&matches).map(|cli| (matches, cli)));
        let error = match parsed {
            Ok((matches, cli)) => {
                faults.extend(own_options::faults(&matches));
                let given = Some((command, matches, cli));
                return Reading { given, faults };
            }
            Err(error) => error,
        };
        let command = innermost(&command, &arguments);
        let missing = missing(command, &error);
        if !missing.is_empty() {
            // An option with an invalid value is not missing.
            faults.extend(
                missing
                    .into_iter()
                    .filter(|(name, _)| !ignored.contains(name))
                    .map(|(_, fault)| fault),
            );
            return Reading { given: None, faults };
        }
        if let Some((option, fault)) = unknown_option(&error)
            && remove_unknown(&mut arguments, &option)
        {
            faults.push(fault);
            continue;
        }
        let Some((option, fault)) = fault(command, &error) else {
            say(&faults);
            exit(&error);
        };
        faults.push(fault);
        // Drop the value, and check the rest without it.
        let is_new = ignored.insert(option.clone());
        if !(remove(&mut arguments, &option) || is_new) {
            return Reading { given: None, faults };
        }
    }
}

/// The command that a command line names, by the words of it that are names of commands.
fn innermost<'a>(command: &'a Command, arguments: &[OsString]) -> &'a Command {
    let words = arguments.iter().skip(1).filter_map(|argument| argument.to_str());
    words.fold(command, |command, word| {
        command.find_subcommand(word).unwrap_or(command)
    })
}

/// Whether a master key was given on the command line, where every user of the machine can read it.
pub(super) fn shows_master_key(matches: &ArgMatches) -> bool {
    const OPTION: &str = "master_key";
    let is_given = matches.try_contains_id(OPTION).unwrap_or_default();
    (is_given && matches.value_source(OPTION) == Some(ValueSource::CommandLine))
        || matches
            .subcommand()
            .is_some_and(|(_, matches)| shows_master_key(matches))
}

/// Writes faults to standard error, one line each.
pub(super) fn say(faults: &[String]) {
    for fault in faults {
        eprintln!("error: {fault}");
    }
}

/// Variables that look like ours but are not, each with the one that was probably meant: a variable without effect is a
/// typo.
pub(super) fn unknown_variables(variables: impl Iterator<Item = (OsString, OsString)>) -> Vec<String> {
    let mut known = HashSet::new();
    collect_variables(&Cli::command(), &mut known);
    let names = variables.filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let is_ours = name.starts_with(PREFIX) && !is_of_kubernetes(&name, &value.to_string_lossy());
        (is_ours && !known.contains(&name)).then_some(name)
    });
    let mut unknown: Vec<String> = names.map(|name| unknown_variable(&name, &known)).collect();
    unknown.sort();
    unknown
}

fn unknown_variable(name: &str, known: &HashSet<String>) -> String {
    let bare = |name: &str| name.trim_start_matches(PREFIX).to_owned();
    let similarity = |known: &String| strsim::normalized_damerau_levenshtein(&bare(name), &bare(known));
    let nearest = known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match nearest.filter(|nearest| similarity(nearest) >= TYPO_SIMILARITY_MIN) {
        Some(nearest) => format!("{name} is set, but there is no such variable; did you mean {nearest}?"),
        None => format!("{name} is set, but there is no such variable; --help lists all"),
    }
}

/// Whether Kubernetes set a variable. It does so in every container for every service of the namespace: a service named
/// `kallima-webhooks` yields `KALLIMA_WEBHOOKS_PORT=tcp://…` and others.
fn is_of_kubernetes(name: &str, value: &str) -> bool {
    let protocols = ["tcp://", "udp://", "sctp://"];
    let of_a_port = |rest: &str| {
        let port = rest.trim_start_matches(|letter: char| letter.is_ascii_digit());
        port.len() < rest.len()
            && ["_TCP", "_UDP", "_SCTP"]
                .iter()
                .any(|protocol| port.starts_with(protocol))
    };
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || name.ends_with("_PORT") && protocols.iter().any(|protocol| value.starts_with(protocol))
        || name.split("_PORT_").skip(1).any(of_a_port)
}

fn collect_variables(command: &Command, known: &mut HashSet<String>) {
    let variables = command.get_arguments().filter_map(Arg::get_env);
    known.extend(variables.filter_map(|name| name.to_str().map(str::to_owned)));
    for subcommand in command.get_subcommands() {
        collect_variables(subcommand, known);
    }
}

/// The command, with these options no longer reading environment variables.
fn without_variables(command: Command, options: &HashSet<String>) -> Command {
    command
        .mut_args(|option| {
            if option.get_long().is_some_and(|long| options.contains(long)) {
                option.env(Resettable::Reset)
            } else {
                option
            }
        })
        .mut_subcommands(|subcommand| without_variables(subcommand, options))
}

/// The option that an error is about, and the line to print; `None` if it is not about the value of an option.
fn fault(command: &Command, error: &Error) -> Option<(String, String)> {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    let name = context(ContextKind::InvalidArg)?.strip_prefix("--")?;
    let name = name.split([' ', '=']).next()?;
    let option = find(command, name)?;
    let called = match option.get_env() {
        Some(variable) => format!("--{name} ({})", variable.display()),
        None => format!("--{name}"),
    };
    let fault = match error.kind() {
        ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            let value = redacted(option, context(ContextKind::InvalidValue).unwrap_or_default());
            format!("{called}: invalid value '{value}'{}", reason(error))
        }
        ErrorKind::ArgumentConflict => match context(ContextKind::PriorArg) {
            Some(other) => format!("{called} cannot be used with {other}"),
            None => format!("{called} cannot be used with the other options given"),
        },
        _ => return None,
    };
    Some((name.to_owned(), fault))
}

/// The options that must be given and were not, each with the line that says so.
fn missing(command: &Command, error: &Error) -> Vec<(String, String)> {
    let Some(ContextValue::Strings(missing)) = error.get(ContextKind::InvalidArg) else {
        return Vec::new();
    };
    let fault = |given: &String| {
        let name = given
            .split(' ')
            .next()
            .unwrap_or_default()
            .trim_start_matches("--")
            .to_owned();
        let variable = find(command, &name).and_then(Arg::get_env);
        let variable = variable.map(|variable| format!(" ({})", variable.display()));
        let fault = format!("{given}{} must be given", variable.unwrap_or_default());
        (name, fault)
    };
    if error.kind() == ErrorKind::MissingRequiredArgument {
        missing.iter().map(fault).collect()
    } else {
        Vec::new()
    }
}

/// The option that does not exist, and the line that says so; nothing where an error is about something else.
fn unknown_option(error: &Error) -> Option<(String, String)> {
    if error.kind() != ErrorKind::UnknownArgument {
        return None;
    }
    let Some(ContextValue::String(given)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = given.split(['=', ' ']).next().filter(|flag| flag.starts_with("--"))?;
    let fault = match error.get(ContextKind::SuggestedArg) {
        Some(ContextValue::String(nearest)) => format!("{flag}: there is no such option; {nearest} is the nearest"),
        _ => format!("{flag}: there is no such option; --help lists them"),
    };
    Some((flag.to_owned(), fault))
}

/// Takes an unknown option off the command line, with what looks like its value. Whether it was there.
fn remove_unknown(arguments: &mut Vec<OsString>, flag: &str) -> bool {
    let is_meant = |argument: &OsString| argument.to_string_lossy().split('=').next() == Some(flag);
    let Some(at) = arguments.iter().position(is_meant) else {
        return false;
    };
    let has_value = arguments[at].to_string_lossy().contains('=');
    arguments.remove(at);
    let is_value = |next: &OsString| !next.to_string_lossy().starts_with('-');
    if !has_value && arguments.get(at).is_some_and(is_value) {
        arguments.remove(at);
    }
    true
}

/// Why a value is invalid.
fn reason(error: &Error) -> String {
    if let Some(cause) = error.source() {
        if cause.is::<ParseIntError>() {
            return ": must be a whole number".to_owned();
        }
        if cause.is::<ipnet::AddrParseError>() {
            return ": must be a network, such as 10.0.0.0/8 or fd00::/8".to_owned();
        }
        let cause = cause.to_string().replace('\n', " ");
        // Clap says which range a number is not in.
        let range = cause
            .split_once(" is not in ")
            .and_then(|(_, range)| range.split_once("..="));
        return match range {
            Some((least, most)) => format!(": must be from {least} to {most}"),
            None => format!(": {cause}"),
        };
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(values)) if !values.is_empty() => format!(": must be one of {}", values.join(", ")),
        _ => String::new(),
    }
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|option| option.get_long() == Some(name))
}

/// Removes an option and its values from the command line. Returns whether it was there.
fn remove(arguments: &mut Vec<OsString>, name: &str) -> bool {
    let flag = format!("--{name}");
    let before = arguments.len();
    let mut is_value = false;
    arguments.retain(|argument| {
        let text = argument.to_string_lossy();
        if std::mem::take(&mut is_value) {
            return false;
        }
        is_value = text == flag;
        !is_value && !text.strip_prefix(&flag).is_some_and(|rest| rest.starts_with('='))
    });
    arguments.len() < before
}

/// Ends the process with clap's own message, unless that would show a URL, which may hold a password.
fn exit(error: &Error) -> ! {
    // A command without its own command gets its help, which is ours.
    let is_help = error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if error.use_stderr() && !is_help && error.to_string().contains("://") {
        eprintln!("error: unexpected URL on the command line; see --help");
        std::process::exit(2);
    }
    error.exit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unknown(variables: &[(&str, &str)]) -> Vec<String> {
        let owned = variables.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        unknown_variables(owned)
    }

    #[test]
    fn a_variable_that_nobody_reads_is_named_with_the_nearest_one() {
        let faults = unknown(&[
            ("KALLIMA_ATTEMPS_MAX", "7"),
            ("KALLIMA_LISTEN", "127.0.0.1:1"),
            ("KALLIMA_TLS_CA_FILE", "ca.pem"),
            ("KALLIMA_ZZZZ", "x"),
            ("KALLIMB_LISTEN", "x"),
            ("PATH", "x"),
        ]);
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].contains("KALLIMA_ATTEMPS_MAX is set") && faults[0].contains("KALLIMA_ATTEMPTS_MAX"));
        assert!(faults[1].contains("KALLIMA_ZZZZ") && faults[1].contains("--help"));
    }

    #[test]
    fn what_kubernetes_sets_is_no_fault() {
        let address = "tcp://10.0.0.1:8080";
        let of_services = [
            ("KALLIMA_SERVICE_HOST", "10.0.0.1"),
            ("KALLIMA_SERVICE_PORT", "8080"),
            ("KALLIMA_WEBHOOKS_SERVICE_PORT_HTTP", "8080"),
            ("KALLIMA_PORT", address),
            ("KALLIMA_WEBHOOKS_PORT", address),
            ("KALLIMA_PORT_8080_TCP", address),
            ("KALLIMA_WEBHOOKS_PORT_8080_TCP_ADDR", "10.0.0.1"),
        ];
        assert_eq!(unknown(&of_services), [""; 0]);
        assert_eq!(
            unknown(&[("KALLIMA_PORT", "8080"), ("KALLIMA_PORT_X", "8080")]).len(),
            2
        );
    }

    #[test]
    fn an_option_is_taken_off_with_its_values() {
        let mut arguments: Vec<OsString> = ["p", "--a", "1", "--b=2", "--bc", "3", "--b", "4", "--c"]
            .map(Into::into)
            .into();
        assert!(remove(&mut arguments, "b"));
        assert_eq!(arguments, ["p", "--a", "1", "--bc", "3", "--c"]);
        assert!(!remove(&mut arguments, "b"));
    }
}
