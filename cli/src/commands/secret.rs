//! `secret`: sets, lists and removes secrets.

use std::{
    fs::File,
    io::{BufRead, IsTerminal, Read, Stdin, stdin},
    path::Path,
    process::{Command, Stdio},
};

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use tucano_api::{
    ids::SecretName,
    secrets::{SecretStored, SecretView},
    service::secret::MAX_SECRET_BYTES,
};

use crate::{
    Error,
    args::{Global, SecretCommand},
    client::Client,
    output,
    table::{self, Style},
};

/// Runs one of the commands.
pub(super) async fn run(
    client: &Client,
    global: &Global,
    command: &SecretCommand,
) -> Result<(), Error> {
    match command {
        SecretCommand::Set {
            name,
            from_file,
            from_command,
            key_lost,
        } => {
            let value = read_value(name, from_file.as_deref(), from_command.as_deref())?;
            set(client, global, name, value, *key_lost).await
        }
        SecretCommand::Ls => list(client, global).await,
        SecretCommand::Rm { name, force } => remove(client, global, name, *force).await,
        SecretCommand::Rekey => rekey(client, global).await,
    }
}

fn read_value(
    name: &SecretName,
    file: Option<&Path>,
    command: Option<&str>,
) -> Result<Vec<u8>, Error> {
    let value = match (file, command) {
        (Some(file), _) => read_file(file)?,
        (None, Some(command)) => read_command(command)?,
        (None, None) => read_stdin(name)?,
    };
    if value.is_empty() {
        let message = format!("the value of {name} is empty: nothing was set");
        return Err(Error::Refused(message.into()));
    }
    if value.ends_with(b"\n") && command.is_none() {
        output::status(&format!(
            "the value of {name} ends with a line break, which is part of it; `printf %s` writes none"
        ));
    }
    Ok(value)
}

async fn set(
    client: &Client,
    global: &Global,
    name: &SecretName,
    value: Vec<u8>,
    key_lost: bool,
) -> Result<(), Error> {
    let query = if key_lost { "?key_lost=true" } else { "" };
    let path = format!("/v1/secrets/{name}{query}");
    let text = client.put(&path, value).await?;
    if global.json {
        return output::data(&text);
    }
    let stored: SecretStored = client.parse(&text)?;
    output::data(&result(&stored))
}

fn result(stored: &SecretStored) -> String {
    let SecretStored { name, .. } = stored;
    if !stored.changed {
        return format!("{name} has this value already: nothing has changed");
    }
    match stored.services.as_slice() {
        [] => format!("{name} is set"),
        services => {
            let names: Vec<&str> = services.iter().map(|it| it.as_str()).collect();
            let names = names.join(", ");
            format!("{name} is set; the processes of {names} are replaced by ones that have it")
        }
    }
}

async fn list(client: &Client, global: &Global) -> Result<(), Error> {
    let text = client.get_text("/v1/secrets").await?;
    if global.json {
        return output::data(&text);
    }
    let secrets: Vec<SecretView> = client.parse(&text)?;
    output::data(&table::secrets(&secrets, Style::of_stdout()))
}

async fn remove(
    client: &Client,
    global: &Global,
    name: &SecretName,
    force: bool,
) -> Result<(), Error> {
    let query = if force { "?force=true" } else { "" };
    let path = format!("/v1/secrets/{name}{query}");
    let text = client.delete(&path, std::time::Duration::ZERO).await?;
    match global.json {
        true => output::data(&text),
        false => output::data(&format!("{name} is removed")),
    }
}

async fn rekey(client: &Client, global: &Global) -> Result<(), Error> {
    let text = client.post("/v1/secret_key", String::new()).await?;
    match global.json {
        true => output::data(&text),
        false => output::data(
            "all secrets are encrypted with a new key: copy the controller's key file again, since earlier copies do not have it",
        ),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, Error> {
    let file = File::open(path).map_err(Error::input("read", path))?;
    let value = bounded(file).map_err(Error::input("read", path))?;
    check_length(&path.display().to_string(), value)
}

/// The output of a shell command, without one final line break, which most programs print.
fn read_command(command: &str) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Program {
        program: command.into(),
        source,
    };
    let mut child = Command::new("sh")
        .args(["-c", command])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let output = child.stdout.take().map(bounded).transpose();
    let value = output.map_err(failed)?.unwrap_or_default();
    let status = child.wait().map_err(failed)?;
    if !status.success() {
        let message = format!("the command of --from-command ended with {status}: nothing was set");
        return Err(Error::Refused(message.into()));
    }
    let mut value = check_length("the command's output", value)?;
    if value.ends_with(b"\n") {
        value.pop();
    }
    Ok(value)
}

fn read_stdin(name: &SecretName) -> Result<Vec<u8>, Error> {
    let input = stdin();
    let what = Path::new("standard input");
    if input.is_terminal() {
        output::status(&format!("value of {name}, which is not shown, and Enter:"));
        let line = read_hidden_line(&input).map_err(Error::input("read", what))?;
        return line.map_err(|why| Error::Refused(format!("nothing was set: {why}").into()));
    }
    let value = bounded(input.lock()).map_err(Error::input("read", what))?;
    check_length("standard input", value)
}

/// A line from a terminal that does not show it, or why there is none.
fn read_hidden_line(input: &Stdin) -> std::io::Result<Result<Vec<u8>, &'static str>> {
    let before = tcgetattr(input)?;
    let mut hidden = before.clone();
    // Without ICANON: with it, longer lines are cut. Without ISIG: an interrupted program would leave the terminal as it is.
    let modes = LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
    hidden.local_modes.remove(modes);
    tcsetattr(input, OptionalActions::Now, &hidden)?;
    let read = typed_line(&mut input.lock());
    let pending = rustix::io::ioctl_fionread(input);
    // What is left of a paste would be taken for commands by the shell.
    tcsetattr(input, OptionalActions::Flush, &before)?;
    Ok(match (read?, pending? > 0) {
        (Ok(_), true) => Err(MORE_LINES),
        (line, _) => line,
    })
}

const MORE_LINES: &str = "more than one line came: use --from-file, or standard input";

/// The bytes up to Enter. The first of them are read by themselves, so that a paste of several lines is noticed.
fn typed_line(input: &mut impl BufRead) -> std::io::Result<Result<Vec<u8>, &'static str>> {
    let mut line = Vec::new();
    loop {
        let buffer = input.fill_buf()?;
        let count = buffer.len();
        if count == 0 {
            return Ok(Ok(line));
        }
        for (index, byte) in buffer.iter().copied().enumerate() {
            match byte {
                b'\r' | b'\n' if index + 1 < count => return Ok(Err(MORE_LINES)),
                b'\r' | b'\n' => {
                    input.consume(count);
                    return Ok(Ok(line));
                }
                // Ctrl-C, and Ctrl-D of an empty line.
                3 => return Ok(Err("it was interrupted")),
                4 if line.is_empty() => return Ok(Ok(line)),
                8 | 127 => drop(line.pop()),
                _ => line.push(byte),
            }
        }
        input.consume(count);
        if line.len() > MAX_SECRET_BYTES {
            return Ok(Err("it has more than 1 MiB"));
        }
    }
}

/// At most one byte more than a secret may have.
fn bounded(input: impl Read) -> std::io::Result<Vec<u8>> {
    let mut value = Vec::new();
    let most = u64::try_from(MAX_SECRET_BYTES).unwrap_or(u64::MAX);
    input.take(most.saturating_add(1)).read_to_end(&mut value)?;
    Ok(value)
}

fn check_length(what: &str, value: Vec<u8>) -> Result<Vec<u8>, Error> {
    if value.len() <= MAX_SECRET_BYTES {
        return Ok(value);
    }
    let message = format!("{what} has more than 1 MiB, the most that a secret may have");
    Err(Error::Refused(message.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commands_output_has_no_final_line_break() {
        assert_eq!(read_command("echo secret").unwrap(), b"secret");
        assert_eq!(read_command("printf 'a\\n\\n'").unwrap(), b"a\n");
        assert_eq!(read_command("printf 'a\\0b'").unwrap(), b"a\0b");
        let error = read_command("echo half; exit 3").unwrap_err();
        assert_eq!(error.exit_code(), 3);
        assert!(!error.to_string().contains("half"), "{error}");
    }

    #[test]
    fn values_are_bounded_while_they_are_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        assert_eq!(read_file(file.path()).unwrap().len(), 1 << 20);
        for path in [Path::new("/dev/zero"), Path::new("/no/such")] {
            assert_eq!(read_file(path).unwrap_err().exit_code(), 3);
        }
        let error = read_command("cat /dev/zero 2>/dev/null; true");
        assert!(error.unwrap_err().to_string().contains("1 MiB"));
    }

    #[test]
    fn a_typed_line_ends_with_enter_and_a_paste_of_several_is_refused() {
        let typed = |text: &[u8]| typed_line(&mut std::io::BufReader::with_capacity(8, text));
        assert_eq!(typed(b"secret\n").unwrap(), Ok(b"secret".to_vec()));
        assert_eq!(typed(b"secrex\x7ft\r").unwrap(), Ok(b"secret".to_vec()));
        let long = [b'x'; 10_000];
        let line = typed(&[&long[..], b"\n"].concat()).unwrap();
        assert_eq!(line.unwrap().len(), 10_000);
        for refused in [&b"a\nb\n"[..], b"sec\x03"] {
            assert!(typed(refused).unwrap().is_err());
        }
        assert_eq!(typed(b"\x04").unwrap(), Ok(Vec::new()));
    }

    #[test]
    fn what_happens_next_is_said() {
        let stored = |changed, services: &[&str]| SecretStored {
            name: "password".parse().unwrap(),
            version: 1,
            changed,
            services: services.iter().map(|it| it.parse().unwrap()).collect(),
        };
        insta::assert_snapshot!(
            [
                result(&stored(true, &[])),
                result(&stored(true, &["web", "db"])),
                result(&stored(false, &[])),
            ]
            .join("\n")
        );
    }
}
