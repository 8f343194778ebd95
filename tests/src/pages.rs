//! Man pages and shell completions, made from the flag definitions of a program.
//!
//! The definitions are private to their program, so the program's own unit test makes the pages, and
//! `cargo xtask man` runs that test with `FLOE_PAGES` naming the directory. Nothing of this gets into the
//! programs: it is a development dependency.

use clap::Command;
use clap_complete::Shell;
use std::path::Path;
use std::{env, fs, io};

/// Writes the pages of a program into `$FLOE_PAGES`, or somewhere temporary, and asserts that they are whole.
///
/// Call it from a test named `man_pages_and_completions`.
///
/// # Panics
/// Where the definitions contradict themselves, or a page lacks a flag or a command.
pub fn check(mut command: Command) {
    command.build();
    command.clone().debug_assert();
    let temporary = tempfile::tempdir().expect("temporary directory");
    let directory =
        env::var_os("FLOE_PAGES").map_or_else(|| temporary.path().to_owned(), Into::into);
    let pages = write(&command, &directory).expect("write the pages");
    for (name, page, command) in &pages {
        for flag in command.get_arguments().filter(|flag| !flag.is_hide_set()) {
            if let Some(long) = flag.get_long() {
                let long = long.replace('-', "\\-");
                assert!(page.contains(&long), "the page `{name}` lacks --{long}");
            }
        }
    }
    let main = &pages.first().expect("a page").1;
    for command in command
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        let name = command.get_name().replace('-', "\\-");
        assert!(main.contains(&name), "the program's page lacks `{name}`");
    }
}

/// Name, text and definition of each page.
type Pages = Vec<(String, String, Command)>;

fn write(command: &Command, directory: &Path) -> io::Result<Pages> {
    let mut pages = Vec::new();
    collect(command, command.get_name(), &mut pages)?;
    let man = directory.join("man/man1");
    fs::create_dir_all(&man)?;
    for (name, page, _) in &pages {
        fs::write(man.join(format!("{name}.1")), page)?;
    }
    for (shell, place) in [
        (Shell::Bash, "bash-completion/completions"),
        (Shell::Zsh, "zsh/site-functions"),
        (Shell::Fish, "fish/vendor_completions.d"),
    ] {
        let place = directory.join(place);
        fs::create_dir_all(&place)?;
        clap_complete::generate_to(shell, &mut command.clone(), command.get_name(), place)?;
    }
    Ok(pages)
}

fn collect(command: &Command, name: &str, pages: &mut Pages) -> io::Result<()> {
    let command = command.clone().display_name(name);
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .title(name)
        .render(&mut page)?;
    pages.push((
        name.to_owned(),
        String::from_utf8_lossy(&page).into_owned(),
        command.clone(),
    ));
    for subcommand in command
        .get_subcommands()
        .filter(|command| !command.is_hide_set() && command.get_name() != "help")
    {
        collect(
            subcommand,
            &format!("{name}-{}", subcommand.get_name()),
            pages,
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check;
    use clap::{Arg, Command};

    #[test]
    fn a_program_with_commands_has_a_page_for_each() {
        let run = Command::new("run")
            .about("Run it")
            .arg(Arg::new("name").long("name-it").help("Its name"));
        check(Command::new("example").about("An example").subcommand(run));
    }
}
