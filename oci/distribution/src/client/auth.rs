//! Answers a registry's challenges: Basic (RFC 7617), and Bearer (RFC 6750) with Docker's token authentication.

use base64::{Engine, prelude::BASE64_STANDARD};
use reqwest::{
    Response, StatusCode, Url,
    header::{HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;

use super::{Credentials, Remote, error::Error};

/// Largest answer of a token service, in bytes.
const TOKEN_BYTES: usize = 256 << 10;

/// An authentication scheme that a registry offers.
#[derive(Debug, Default, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// The credentials for a registry that answered with 401.
pub(super) async fn answer(
    remote: &Remote,
    scope: &str,
    response: &Response,
) -> Result<HeaderValue, Error> {
    let headers = response.headers().get_all(WWW_AUTHENTICATE);
    let challenges: Vec<Challenge> = headers
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect();
    let of = |scheme: &str| challenges.iter().find(|it| it.scheme == scheme);
    match (of("bearer"), of("basic"), &remote.credentials) {
        (_, _, Credentials::Token(_)) => Err(remote.unauthorized("it does not accept the token")),
        (Some(challenge), _, _) if challenge.get("realm").is_some() => {
            bearer(remote, &token(remote, scope, challenge).await?)
        }
        (_, Some(_), Credentials::User { name, password }) => {
            let pair = BASE64_STANDARD.encode(format!("{name}:{}", password.expose()));
            secret(remote, &format!("Basic {pair}"))
        }
        (_, Some(_), Credentials::Anonymous) => {
            Err(remote.unauthorized("it wants a user and a password, and none are configured"))
        }
        _ => Err(remote.unauthorized("it asks for credentials of a kind that is not known")),
    }
}

/// A bearer token's header.
pub(super) fn bearer(remote: &Remote, token: &str) -> Result<HeaderValue, Error> {
    secret(remote, &format!("Bearer {token}"))
}

fn secret(remote: &Remote, text: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| remote.unauthorized("the credentials cannot be sent in a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// Requests a token from the challenge's token service.
async fn token(remote: &Remote, scope: &str, challenge: &Challenge) -> Result<String, Error> {
    let realm = challenge.get("realm").unwrap_or_default();
    let mut url: Url = realm
        .parse()
        .map_err(|_| remote.unauthorized("the token service that it names has no address"))?;
    check_realm(remote, &url)?;
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = challenge.get("service") {
            query.append_pair("service", service);
        }
        query.append_pair("scope", challenge.get("scope").unwrap_or(scope));
    }
    let shown = url.host_str().unwrap_or_default().to_owned();
    let mut request = remote.http.get(url);
    if let Credentials::User { name, password } = &remote.credentials {
        request = request.basic_auth(name, Some(password.expose()));
    }
    let response = request.send().await;
    let response = response.map_err(|error| Error::unsent(&shown, &error))?;
    match response.status() {
        StatusCode::OK => read_token(remote, &shown, response).await,
        _ => Err(Error::of(&shown, "the request for a token", response).await),
    }
}

/// Refuses to send a password without TLS.
fn check_realm(remote: &Remote, realm: &Url) -> Result<(), Error> {
    let is_same_host = realm.host_str() == remote.base.host_str();
    let is_open = remote.base.scheme() == "http" && realm.scheme() == "http" && is_same_host;
    match realm.scheme() == "https" || is_open {
        true => Ok(()),
        false => Err(remote.unauthorized("the token service that it names does not speak TLS")),
    }
}

async fn read_token(
    remote: &Remote,
    service: &str,
    mut response: Response,
) -> Result<String, Error> {
    let mut body = Vec::new();
    loop {
        let chunk = response.chunk().await;
        match chunk.map_err(|error| Error::unsent(service, &error))? {
            None => break,
            Some(chunk) => body.extend_from_slice(&chunk),
        }
        if body.len() > TOKEN_BYTES {
            return Err(remote.unauthorized("the token has no end"));
        }
    }
    let parsed: Option<Token> = serde_json::from_slice(&body).ok();
    let token = parsed.and_then(|it| it.token.or(it.access_token));
    token.ok_or_else(|| remote.unauthorized("the answer of its token service holds no token"))
}

/// The challenges of one header (RFC 9110, section 11.6.1): schemes, each with parameters, all separated by commas.
fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<Challenge> = Vec::new();
    for item in items(header) {
        let (word, rest) = item.split_once(' ').unwrap_or((item, ""));
        let parameter = match word.contains('=') {
            true => item,
            false => {
                found.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: Vec::new(),
                });
                rest
            }
        };
        if let (Some(challenge), Some((name, value))) =
            (found.last_mut(), parameter.trim().split_once('='))
        {
            let parameter = (name.trim().to_ascii_lowercase(), unquoted(value.trim()));
            challenge.parameters.push(parameter);
        }
    }
    found
}

/// Splits at commas outside of quotes.
fn items(header: &str) -> Vec<&str> {
    let (mut items, mut start, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, byte) in header.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b',' if !quoted => {
                items.push(&header[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    items.push(&header[start..]);
    let trimmed = items.into_iter().map(str::trim);
    trimmed.filter(|item| !item.is_empty()).collect()
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
    else {
        return value.to_owned();
    };
    let mut text = String::new();
    let mut characters = inner.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => text.extend(characters.next()),
            other => text.push(other),
        }
    }
    text
}

#[cfg(test)]
mod tests;
