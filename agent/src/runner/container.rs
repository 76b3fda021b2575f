//! A container's command line, environment, the files of its `/etc`, and the configuration files of its service.

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use oci_spec::image::ImageConfiguration;
use tucano_api::{
    agent::DesiredProcess,
    ids::NodeName,
    names::{NAMES_DOMAIN, NamedService},
    service::{ConfigFile, port::HTTP},
};

use crate::files::write_owned;

/// The identity that a process learns from its environment.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// The process.
    pub process: &'a DesiredProcess,
    /// The name of its node.
    pub node: &'a NodeName,
    /// The services that it needs.
    pub needs: &'a [Arc<NamedService>],
}

/// The command line: the image's entrypoint, followed by the service's arguments or else the image's. With an entrypoint of the
/// service the image's arguments are not used.
pub fn command(image: &ImageConfiguration, process: &DesiredProcess) -> Vec<String> {
    let config = image.config().as_ref();
    let own = process.config.entrypoint.clone();
    let image_args = || config.and_then(|config| config.cmd().clone());
    let image_args = || image_args().filter(|_| process.config.entrypoint.is_none());
    let entrypoint = own.or_else(|| config.and_then(|config| config.entrypoint().clone()));
    let args = process.config.args.clone().or_else(image_args);
    let both = [entrypoint, args].into_iter().flatten();
    both.flatten().collect()
}

/// The environment, in increasing priority: the image's, `PORT`, where the services are that it needs, the service's own, and Tucano's
/// variables.
pub fn environment(image: &ImageConfiguration, identity: Identity<'_>) -> Vec<String> {
    let process = identity.process;
    let mut variables: BTreeMap<String, String> = BTreeMap::new();
    variables.insert("PATH".into(), DEFAULT_PATH.into());
    let config = image.config().as_ref();
    for variable in config
        .and_then(|config| config.env().as_ref())
        .into_iter()
        .flatten()
    {
        if let Some((name, value)) = variable.split_once('=') {
            variables.insert(name.into(), value.into());
        }
    }
    if let Some(main) = process.config.main_port() {
        variables.insert("PORT".into(), main.port.port.to_string());
    }
    for service in identity.needs {
        variables.extend(where_it_is(service));
    }
    variables.extend(process.config.env.clone());
    for (name, value) in [
        ("TUCANO_SERVICE", process.config.name.to_string()),
        ("TUCANO_REVISION", process.revision.to_string()),
        ("TUCANO_PROCESS", process.id.to_string()),
        ("TUCANO_NODE", identity.node.to_string()),
    ] {
        variables.insert(name.into(), value);
    }
    if let Some(slot) = identity.process.slot {
        variables.insert("TUCANO_SLOT".into(), slot.to_string());
    }
    variables
        .into_iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

/// `DB_HOST` and `DB_PORT` of a service `db`: the port named `http`, or the first one, and one with its name for each, such as
/// `DB_PORT_METRICS`.
fn where_it_is(service: &NamedService) -> Vec<(String, String)> {
    let upper = |name: &str| name.to_ascii_uppercase().replace('-', "_");
    let prefix = upper(service.service.as_str());
    let host = format!("{}.{NAMES_DOMAIN}", service.service);
    let mut variables = vec![(format!("{prefix}_HOST"), host)];
    let http = service.ports.iter().find(|it| it.name.as_str() == HTTP);
    let main = http.or(service.ports.first());
    variables.extend(main.map(|main| (format!("{prefix}_PORT"), main.port.to_string())));
    for port in &service.ports {
        let name = format!("{prefix}_PORT_{}", upper(port.name.as_str()));
        variables.push((name, port.port.to_string()));
    }
    variables
}

/// `PATH` of images that do not set it.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Writes hosts, hostname and resolv.conf, which are mounted read-only over the image's.
///
/// # Errors
/// A file cannot be written.
pub fn write_etc(
    directory: &Path,
    hostname: &str,
    ip: Ipv4Addr,
    more_hosts: &BTreeMap<String, IpAddr>,
    resolv_conf: &str,
) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let mut hosts = format!("127.0.0.1 localhost\n::1 localhost\n{ip} {hostname}\n");
    for (name, ip) in more_hosts {
        hosts += &format!("{ip} {name}\n");
    }
    fs::write(directory.join("hosts"), hosts)?;
    fs::write(directory.join("hostname"), format!("{hostname}\n"))?;
    fs::write(directory.join("resolv.conf"), resolv_conf)
}

/// Where the configuration file of this number is.
pub fn file_path(directory: &Path, number: usize) -> PathBuf {
    directory.join(number.to_string())
}

/// Writes the configuration files of a service, which are mounted read-only: each by its number, with its mode, and owned by the
/// id in the container, which on the node is `ids_base` higher.
///
/// # Errors
/// A file cannot be written.
pub fn write_files(directory: &Path, files: &[ConfigFile], ids_base: u32) -> io::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ if files.is_empty() => return Ok(()),
        _ => fs::create_dir_all(directory)?,
    }
    for (number, file) in files.iter().enumerate() {
        let content = file.content.as_deref().unwrap_or_default().as_bytes();
        let id = |id: u32| ids_base.saturating_add(id);
        let (path, owner) = (file_path(directory, number), (id(file.uid), id(file.gid)));
        write_owned(&path, content, file.mode.bits(), owner)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
