//! The command line: the list of commands.

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::{command, output};

/// Isolate, control and look at containers
#[derive(Debug, Parser)]
#[command(
    name = "floe",
    version,
    propagate_version = false,
    disable_help_subcommand = true
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

macro_rules! commands {
    ($($(#[$attribute:meta])* $variant:ident => $module:ident),* $(,)?) => {
        #[derive(Debug, Subcommand)]
        enum Command {
            $($(#[$attribute])* $variant(command::$module::Flags)),*
        }

        impl Command {
            fn run(self) -> Result<u8> {
                match self {
                    $(Self::$variant(flags) => command::$module::run(&flags)),*
                }
            }
        }
    };
}

commands! {
    /// Run a program in a new container
    Run => run,
    /// Make a container without starting it
    Create => create,
    /// Start containers
    Start => start,
    /// Stop and start containers
    Restart => restart,
    /// Ask containers to end, then kill them
    Stop => stop,
    /// Send a signal to containers
    Kill => kill,
    /// Remove containers
    Rm => rm,
    /// List containers
    Ps => ps,
    /// Connect to a running container
    Attach => attach,
    /// Run a program in a running container
    Exec => exec,
    /// Show what a container wrote
    Logs => logs,
    /// Show everything about containers
    Inspect => inspect,
    /// Show what containers use
    Stats => stats,
    /// Show what changed in a container's files
    Diff => diff,
    /// Copy files into or out of a container
    Cp => cp,
    /// Change limits and restart policy
    Update => update,
    /// Freeze all processes of containers
    Pause => pause,
    /// Let frozen containers go on
    Unpause => unpause,
    /// Save a container's processes to disk
    Checkpoint => checkpoint,
    /// Let a container's saved processes go on
    Restore => restore,
    /// Give a container another name
    Rename => rename,
    /// Wait for containers to end and print their statuses
    Wait => wait,
    /// Show what happens to containers
    Events => events,
    /// Make, limit, watch and hand out resource groups
    Group => group,
    /// List, keep, enter and make namespaces
    Ns => ns,
    /// Show what this machine can and cannot do
    Info => info,
}

/// Reads the arguments and does what they ask; the exit status.
///
/// # Errors
/// What a command could not do.
pub(crate) fn run() -> Result<u8> {
    match Arguments::try_parse_from(std::env::args_os()) {
        Ok(arguments) => arguments.command.run(),
        Err(error) => {
            let wrong = error.use_stderr();
            let text = error.render().to_string();
            // A wrong word is repeated, whoever it came from.
            if monitor::text::plain_lines(&text) == text {
                error.print()?;
            } else {
                output::note(&text);
            }
            // As docker: a wrong flag is 125.
            Ok(if wrong { 125 } else { 0 })
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn man_pages_and_completions() {
        ::tests::pages::check(Arguments::command());
    }
}
