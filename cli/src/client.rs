//! Requests to the controller, and the errors that its answers become.

use std::{
    convert::Infallible, error::Error as _, fmt, io, path::Path, str::FromStr, time::Duration,
};

use reqwest::{Certificate, Method, RequestBuilder, Response, StatusCode, Url, multipart::Form};
use serde::de::DeserializeOwned;
use tucano_api::error::{ErrorBody, innermost};
use tucano_oci_distribution::{
    Name,
    client::{Credentials, Options, Remote, Secret},
};
use tucano_oci_session::UPGRADE;
use tucano_tls::{CA_FILE, Trust};

use crate::{Error, args::Global};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a short request may take. Uploads and logs have no time limit.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Largest answer that is read into memory, in bytes.
const MAX_ANSWER_BYTES: usize = 256 << 20;

/// A secret: never shown.
#[derive(Clone)]
pub struct Token(String);

impl FromStr for Token {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// The controller, as the arguments name it.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    api: Url,
    token: Option<Token>,
    trust: Option<Trust>,
}

impl Client {
    /// A client; it connects with the first request.
    ///
    /// # Errors
    /// A malformed address, or a token's file that cannot be read.
    pub fn new(global: &Global) -> Result<Self, Error> {
        let api = parse_api(&global.api)?;
        let token = match &global.token_file {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|source| Error::TokenFile {
                    path: path.clone(),
                    source,
                })?;
                Some(Token(text.trim().to_owned()))
            }
            None => global.token.clone(),
        };
        tucano_tls::install_provider();
        let trust = trust(&api, global.ca_file.as_deref())?;
        let mut http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .user_agent(concat!("tucano/", env!("CARGO_PKG_VERSION")));
        if is_loopback(&api) {
            // A proxy cannot reach the loopback interface of this machine.
            http = http.no_proxy();
        }
        if let Some(trust) = &trust {
            let authorities = Certificate::from_pem_bundle(trust.pem().as_bytes());
            let authorities = authorities.map_err(|error| Error::Usage(describe(&error)))?;
            http = http.tls_certs_only(authorities);
        }
        let http = http
            .build()
            .map_err(|error| Error::Usage(describe(&error)))?;
        Ok(Self {
            http,
            api,
            token,
            trust,
        })
    }

    /// The address of the controller's API.
    pub fn api(&self) -> &str {
        self.api.as_str().trim_end_matches('/')
    }

    /// `GET` of a document, as text.
    pub async fn get_text(&self, path: &str) -> Result<String, Error> {
        let request = self.request(Method::GET, path).timeout(REQUEST_TIMEOUT);
        self.text(self.send(request, "the request").await?).await
    }

    /// `GET` of a document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        self.parse(&self.get_text(path).await?)
    }

    /// `GET` of a stream, which may be endless.
    pub async fn stream(&self, path: &str) -> Result<Response, Error> {
        self.send(self.request(Method::GET, path), "the request")
            .await
    }

    /// `POST` that turns the connection into a session's.
    pub async fn upgrade(&self, path: &str) -> Result<Response, Error> {
        let request = self
            .request(Method::POST, path)
            .header("Connection", "Upgrade")
            .header("Upgrade", UPGRADE);
        self.send(request, "the request").await
    }

    /// `PATCH` with JSON.
    pub async fn patch(&self, path: &str, body: &serde_json::Value) -> Result<String, Error> {
        let request = self
            .request(Method::PATCH, path)
            .timeout(REQUEST_TIMEOUT)
            .json(body);
        self.text(self.send(request, "the change").await?).await
    }

    /// `DELETE`, which the controller may answer after up to `timeout`.
    pub async fn delete(&self, path: &str, timeout: Duration) -> Result<String, Error> {
        let request = self
            .request(Method::DELETE, path)
            .timeout(REQUEST_TIMEOUT + timeout);
        self.text(self.send(request, "the removal").await?).await
    }

    /// `POST` of a text.
    pub async fn post(&self, path: &str, body: String) -> Result<String, Error> {
        let request = self
            .request(Method::POST, path)
            .timeout(REQUEST_TIMEOUT)
            .body(body);
        self.text(self.send(request, "the request").await?).await
    }

    /// `PUT` of bytes.
    pub async fn put(&self, path: &str, body: Vec<u8>) -> Result<String, Error> {
        let request = self
            .request(Method::PUT, path)
            .timeout(REQUEST_TIMEOUT)
            .header("content-type", "application/octet-stream")
            .body(body);
        self.text(self.send(request, "the request").await?).await
    }

    /// `POST` of a configuration, without a time limit: the controller may have to pull an image.
    pub async fn deploy(&self, path: &str, body: String) -> Result<String, Error> {
        let request = self.request(Method::POST, path).body(body);
        self.text(self.send(request, "the deploy").await?).await
    }

    /// The platform that images must have, as `os/architecture`; this machine's, where the controller names none.
    pub async fn platform(&self) -> Result<String, Error> {
        #[derive(serde::Deserialize)]
        struct Config {
            platform: String,
        }
        let text = self.get_text("/v1/config").await?;
        let config: Option<Config> = serde_json::from_str(&text).ok();
        let own = || tucano_oci_image::Platform::host().to_string();
        Ok(config.map_or_else(own, |config| config.platform))
    }

    /// The controller's registry.
    pub fn registry(&self) -> Result<Remote, Error> {
        let credentials = self.token.as_ref().map_or(Credentials::Anonymous, |token| {
            Credentials::Token(Secret::new(token.0.as_str()))
        });
        let remote = Remote::new(Options {
            base: self.api().to_owned(),
            credentials,
            authorities: self
                .trust
                .as_ref()
                .map(|trust| trust.pem().as_bytes().to_vec()),
            only_those: true,
            silence: REQUEST_TIMEOUT,
            proxies: !is_loopback(&self.api),
        });
        remote.map_err(|error| Error::Usage(error.to_string()))
    }

    /// The repository of the registry that images are uploaded to.
    pub fn repository(&self) -> Result<Name, Error> {
        let name = tucano_api::IMAGES_REPOSITORY.parse();
        name.map_err(|error: tucano_oci_distribution::BadName| Error::Usage(error.to_string()))
    }

    /// `POST` of files, without a time limit.
    pub async fn upload(&self, path: &str, form: Form) -> Result<String, Error> {
        let request = self.request(Method::POST, path).multipart(form);
        self.text(self.send(request, "the upload").await?).await
    }

    /// Parses a document of the controller.
    pub fn parse<T: DeserializeOwned>(&self, text: &str) -> Result<T, Error> {
        serde_json::from_str(text).map_err(|error| Error::Transfer {
            step: "reading the answer",
            api: self.api().to_owned(),
            reason: format!("{error}. Is it a Tucano controller of this version?"),
        })
    }

    /// For `map_err`: a connection that broke.
    pub fn transfer_error(&self, step: &'static str) -> impl FnOnce(reqwest::Error) -> Error {
        let api = self.api().to_owned();
        move |error| Error::Transfer {
            step,
            api,
            reason: describe(&error),
        }
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.api()));
        match &self.token {
            Some(Token(token)) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder, step: &'static str) -> Result<Response, Error> {
        let response = request
            .send()
            .await
            .map_err(|error| self.send_error(error, step))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(response);
        }
        let text = self.text(response).await?;
        Err(error_of_answer(status, &text))
    }

    fn send_error(&self, error: reqwest::Error, step: &'static str) -> Error {
        if is_about_certificates(&error) {
            return Error::Unverified {
                api: self.api().to_owned(),
                reason: innermost(&error).to_string(),
            };
        }
        if error.is_connect() {
            return Error::Unreachable {
                api: self.api().to_owned(),
                reason: innermost(&error).to_string(),
            };
        }
        self.transfer_error(step)(error)
    }

    async fn text(&self, mut response: Response) -> Result<String, Error> {
        let mut bytes = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(self.transfer_error("the answer"))?
        {
            bytes.extend_from_slice(&chunk);
            if bytes.len() > MAX_ANSWER_BYTES {
                return Err(Error::Controller(
                    format!("its answer is longer than {MAX_ANSWER_BYTES} bytes").into(),
                ));
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The error of an answer with a status of 400 or above.
fn error_of_answer(status: StatusCode, text: &str) -> Error {
    let mut body = match serde_json::from_str::<ErrorBody>(text) {
        Ok(body) if body.code == "not_healthy" => {
            let (message, failures) = (body.error, Vec::new());
            return Error::NotHealthy { message, failures };
        }
        Ok(body) if body.code == "no_such_image" => return Error::Refused(body.into()),
        Ok(body) if body.code == "revision_changed" => return Error::RevisionChanged(body.into()),
        Ok(body) => body,
        Err(_) => {
            let message =
                format!("the answer is not from a Tucano controller ({status}); is --api right?");
            return Error::Controller(message.into());
        }
    };
    match status.as_u16() {
        401 | 403 => Error::Unauthorized(body.into()),
        404 => Error::NotFound(body.into()),
        408 | 429 => Error::Controller(body.into()),
        400..=499 => Error::Refused(body.into()),
        _ => {
            body.error = format!("the controller failed: {}", body.error);
            Error::Controller(body.into())
        }
    }
}

fn parse_api(text: &str) -> Result<Url, Error> {
    let wrong = || {
        let advice = "write for example http://127.0.0.1:7070";
        Error::Usage(format!("{text:?} is not an address of an API: {advice}"))
    };
    let with_scheme = if text.contains("://") {
        text.to_owned()
    } else {
        format!("http://{text}")
    };
    let url: Url = with_scheme.parse().map_err(|_| wrong())?;
    let usable =
        ["http", "https"].contains(&url.scheme()) && url.has_host() && url.query().is_none();
    usable.then_some(url).ok_or_else(wrong)
}

/// The authorities that may vouch for the controller. None for plain HTTP; none, too, where the system's authorities apply.
fn trust(api: &Url, file: Option<&Path>) -> Result<Option<Trust>, Error> {
    if api.scheme() != "https" {
        return Ok(None);
    }
    let path = file.unwrap_or(Path::new(CA_FILE));
    let trust = Trust::read(path).map_err(|error| Error::Usage(error.to_string()))?;
    match (&trust, file) {
        (None, Some(named)) => {
            let message = format!(
                "--ca-file {}: there is no such file; copy {CA_FILE} of the controller's machine to it",
                named.display()
            );
            Err(Error::Usage(message))
        }
        _ => Ok(trust),
    }
}

/// Whether a connection failed because of the server's certificate.
fn is_about_certificates(error: &reqwest::Error) -> bool {
    let mut cause = error.source();
    while let Some(inner) = cause {
        // The error inside an IO error is not its source, and IO errors may be nested.
        let mut of_io = inner.downcast_ref::<io::Error>();
        while let Some(within) = of_io.and_then(io::Error::get_ref) {
            if let Some(rustls::Error::InvalidCertificate(_)) = within.downcast_ref() {
                return true;
            }
            of_io = within.downcast_ref();
        }
        cause = inner.source();
    }
    false
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|ip| ip.is_loopback())
}

/// The whole chain of causes in one line.
fn describe(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text += &format!(": {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests;
