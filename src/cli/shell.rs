//! `completions` and `man`: what a shell and a manual are to know of the command line, from its own definition.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;
use clap_mangen::Man;

use super::{Cli, CommandResult, own_options};

#[derive(Args, Debug)]
pub(super) struct CompletionsOptions {
    /// The shell.
    shell: Shell,
}

#[derive(Args, Debug)]
pub(super) struct ManOptions {
    /// Write a page for each command into this folder, instead of printing the first one.
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

/// Prints the completions of a shell.
pub(super) fn completions(options: &CompletionsOptions) {
    let mut command = own_options::build(Cli::command());
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(options.shell, &mut command, name, &mut script);
    print(&script);
}

fn print(bytes: &[u8]) {
    print!("{}", String::from_utf8_lossy(bytes));
}

/// Prints the manual's page, or writes all of them.
pub(super) fn man(options: &ManOptions) -> CommandResult {
    let command = own_options::build(Cli::command());
    if let Some(folder) = &options.dir {
        clap_mangen::generate_to(command, folder)?;
    } else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        print(&page);
    }
    Ok(())
}
