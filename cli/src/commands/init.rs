//! `init`: a configuration with comments, of what an image says of itself.

mod text;

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

use tucano_api::{
    ids::ServiceName,
    image::{ImageDescription, ImageQuery},
    service::{ImageHealth, ServiceConfig},
    settings::parse_all,
    units::Span,
};
use tucano_oci_image::Description;

use super::DOCKER;
use crate::{
    Error,
    args::{self, Global},
    client::Client,
    compose, image, output,
};

/// The output that is no file.
const STDOUT: &str = "-";

pub(super) async fn run(
    client: impl Fn() -> Result<Client, Error>,
    global: &Global,
    arguments: &args::Init,
) -> Result<(), Error> {
    let path = Path::new(&arguments.image);
    let is_file = path.exists();
    let name = match &arguments.name {
        Some(name) => name.clone(),
        None => name_of(&arguments.image, is_file)?,
    };
    let output = arguments.output.clone();
    let output = output.unwrap_or_else(|| PathBuf::from(format!("{name}.toml")));
    // Before an image is pulled for it.
    if output.as_os_str() != STDOUT && output.exists() {
        return Err(exists(&output));
    }
    let description = match is_file {
        true => described(beside(path, &output)?, image::describe(path).await?),
        false => of_controller(&client()?, &arguments.image).await?,
    };
    let text = text::of(&name, &description, &output);
    parse_all::<ServiceConfig>(&output.display().to_string(), &text)?;
    if output.as_os_str() == STDOUT {
        return output::data(&text);
    }
    write(&output, &text)?;
    let file = output.display().to_string();
    match global.json {
        true => output::data(&serde_json::json!({ "file": file, "name": name }).to_string()),
        false => output::data(&format!(
            "{file} is written: `tucano deploy {file}` deploys it"
        )),
    }
}

async fn of_controller(client: &Client, image: &str) -> Result<ImageDescription, Error> {
    let query = ImageQuery {
        image: image.to_owned(),
        default_registry: Some(DOCKER.to_owned()),
    };
    let body = serde_json::to_string(&query).map_err(|error| Error::Usage(error.to_string()))?;
    let answer = client.deploy("/v1/images/describe", body).await?;
    client.parse(&answer)
}

fn described(name: String, said: Description) -> ImageDescription {
    let health = said.healthcheck.map(|it| {
        let times = [it.interval, it.timeout, it.start_period].map(Span);
        ImageHealth::of_docker(it.command, times, it.retries)
    });
    ImageDescription {
        name,
        digest: None,
        entrypoint: said.entrypoint,
        cmd: said.cmd,
        exposed_ports: said.exposed_ports,
        user: said.user,
        volumes: said.volumes,
        working_dir: said.working_dir,
        stop_signal: said.stop_signal,
        health,
    }
}

/// A service's name from that of an image, or of its file.
fn name_of(image: &str, is_file: bool) -> Result<ServiceName, Error> {
    let path = Path::new(image);
    let stem = match is_file {
        true => path.file_stem().map(|it| it.to_string_lossy().into_owned()),
        false => {
            let name = image.split('@').next().unwrap_or(image);
            let name = name.rsplit('/').next().unwrap_or(name);
            name.split(':').next().map(str::to_owned)
        }
    };
    let stem = stem.filter(|_| is_file || !image.starts_with("sha256:"));
    let name = compose::name(&stem.unwrap_or_default());
    name.parse().map_err(|_| {
        Error::Usage(format!(
            "no name for a service can be made of {image:?}: use --name"
        ))
    })
}

/// The path of an archive as a configuration names it, which is relative to its own directory.
fn beside(image: &Path, output: &Path) -> Result<String, Error> {
    let is_here = output.as_os_str() == STDOUT || output.parent() == Some(Path::new(""));
    let path = match is_here {
        true => image.to_owned(),
        false => fs::canonicalize(image).map_err(Error::input("read the image", image))?,
    };
    let text = path.to_str().map(str::to_owned);
    text.ok_or_else(|| Error::Usage(format!("{} is not UTF-8", path.display())))
}

/// Writes a new file. One that exists, even since a moment ago, is left as it is.
fn write(path: &Path, text: &str) -> Result<(), Error> {
    let file = File::create_new(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => Error::file("write", path)(error),
    });
    file?
        .write_all(text.as_bytes())
        .map_err(Error::file("write", path))
}

fn exists(path: &Path) -> Error {
    let message = format!(
        "{} exists and is left as it is: --output names another file, and --output - prints the configuration",
        path.display()
    );
    Error::Refused(message.into())
}

#[cfg(test)]
mod tests;
