//! Other programs: where they run, and how their end becomes a [`Result`].

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::Result;

/// The top of the repository: the first folder, from here upwards, that holds this task runner.
pub(crate) fn root() -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(|e| format!("there is no current directory: {e}"))?;
    here.ancestors()
        .find(|folder| folder.join("xtask/Cargo.toml").is_file())
        .map(Path::to_path_buf)
        .ok_or_else(|| format!("{} is not inside the repository", here.display()))
}

/// The cargo that started us, in the top of the repository, with nobody to answer its questions.
pub(crate) fn cargo() -> Result<Command> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()?).stdin(Stdio::null());
    Ok(command)
}

/// Prints the command, runs it with its output going to ours, and fails where it fails.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let line = line(command);
    println!("$ {line}");
    let status = command.status().map_err(|e| format!("`{line}` cannot be started: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("`{line}` failed ({status})")) }
}

/// Runs the command and gives its standard output, or all that it said if it fails.
pub(crate) fn capture(command: &mut Command) -> Result<String> {
    let line = line(command);
    let output = command.stdin(Stdio::null()).output().map_err(|e| format!("`{line}` cannot be started: {e}"))?;
    if output.status.success() {
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    } else {
        let [said, complained] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
        let said = format!("{}\n{}", said.trim(), complained.trim());
        Err(format!("`{line}` failed ({}):\n{}", output.status, said.trim()))
    }
}

/// Whether the program exists and ends well with these arguments. What it prints is thrown away.
pub(crate) fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// The command as one would type it.
pub(crate) fn line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut words = vec![program.to_string_lossy().into_owned()];
    words.extend(command.get_args().map(|word| {
        let word = word.to_string_lossy();
        if word.is_empty() || word.contains(char::is_whitespace) { format!("'{word}'") } else { word.into_owned() }
    }));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_holds_the_workspace() {
        assert!(root().unwrap().join("Cargo.toml").is_file());
    }

    #[test]
    fn failure_names_the_command() {
        let told = run(Command::new("sh").args(["-c", "exit 3"])).unwrap_err();
        assert!(told.contains("sh -c 'exit 3'") && told.contains('3'), "{told}");
        let told = capture(Command::new("sh").args(["-c", "echo what; echo why >&2; exit 3"])).unwrap_err();
        assert!(told.ends_with("what\nwhy"), "{told}");
        let told = run(&mut Command::new("no-such-program-here")).unwrap_err();
        assert!(told.contains("no-such-program-here"), "{told}");
    }

    #[test]
    fn missing_program_does_not_work() {
        assert!(works("sh", &["-c", "true"]));
        assert!(!works("sh", &["-c", "false"]));
        assert!(!works("no-such-program-here", &[]));
    }
}
