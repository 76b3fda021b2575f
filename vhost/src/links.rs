//! Scripts for ip(8) and nft(8), which run in the network's private namespaces.

use std::{
    io::Write,
    net::Ipv4Addr,
    process::{Command, Stdio},
};

use crate::{Error, Subnet};

/// Creates the bridge with the switch's address.
pub(crate) fn switch_script(subnet: Subnet) -> String {
    format!(
        "link set lo up\n\
         link add br0 type bridge\n\
         address add {}/{} dev br0\n\
         link set br0 up\n",
        subnet.gateway(),
        subnet.prefix()
    )
}

/// Creates the veth pair between the switch and a host whose init is `pid`. The hardware address is derived from the IP address,
/// so that neighbour entries stay valid when a host reboots.
pub(crate) fn port_script(port: &str, ip: Ipv4Addr, pid: i32) -> String {
    let [a, b, c, d] = ip.octets();
    format!(
        "link add {port} type veth peer name eth0 address 02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x} netns {pid}\n\
         link set {port} master br0 up\n"
    )
}

/// Configures the host's end of the pair.
pub(crate) fn host_script(subnet: Subnet, ip: Ipv4Addr) -> String {
    format!(
        "link set lo up\n\
         address add {ip}/{} dev eth0\n\
         link set eth0 up\n\
         route add default via {}\n",
        subnet.prefix(),
        subnet.gateway()
    )
}

/// Drops all packets between two ports of the bridge, including those of established connections, or stops dropping them.
pub(crate) fn cut_script(a: &str, b: &str, cut: bool) -> String {
    let verb = if cut { "add" } else { "delete" };
    format!(
        "add table bridge vhost\n\
         add set bridge vhost cut {{ type ifname . ifname; }}\n\
         add chain bridge vhost forward {{ type filter hook forward priority 0; }}\n\
         flush chain bridge vhost forward\n\
         add rule bridge vhost forward iifname . oifname @cut drop\n\
         add element bridge vhost cut {{ \"{a}\" . \"{b}\", \"{b}\" . \"{a}\" }}\n\
         {verb} element bridge vhost cut {{ \"{a}\" . \"{b}\", \"{b}\" . \"{a}\" }}\n"
    )
}

/// Runs a command with a script on its standard input.
pub(crate) fn run_script(mut command: Command, script: &str) -> Result<(), Error> {
    let line = describe(&command);
    let spawn = |source| Error::Spawn {
        program: line.clone(),
        source,
    };
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(spawn)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early reports the reason on its standard error, which is more useful than the broken pipe.
        stdin
            .write_all(script.as_bytes())
            .or_else(ignore_broken_pipe)
            .map_err(spawn)?;
    }
    let output = child.wait_with_output().map_err(spawn)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(Error::Command {
        command: line,
        output: format!("{} ({})", message.trim().replace('\n', "; "), output.status),
    })
}

fn ignore_broken_pipe(error: std::io::Error) -> std::io::Result<()> {
    match error.kind() {
        std::io::ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
