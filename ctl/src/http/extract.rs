//! Extractors whose refusals are the API's own errors.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use serde::{Deserialize, de::DeserializeOwned};
use tucano_api::units::Span;
use utoipa::IntoParams;

use super::errors::ApiError;

/// Time that `wait=true` waits unless the request says otherwise.
const WAIT: Span = Span::secs(120);

/// A path's last part, parsed.
#[derive(Debug)]
pub struct Named<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Named<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(value) = Path::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::not_found(error.body_text()))?;
        Ok(Self(value))
    }
}

/// A query string, parsed.
#[derive(Debug)]
pub struct Asked<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
        Ok(Self(value))
    }
}

/// Whether to wait for what a request brings about.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Answer when it has come about.
    wait: bool,
    /// At most for so long; 120s when absent.
    #[param(value_type = Option<String>)]
    timeout: Option<Span>,
}

impl Wait {
    /// As a query with more in it has it.
    pub fn new(wait: bool, timeout: Option<Span>) -> Self {
        Self { wait, timeout }
    }

    /// How long to wait, if at all.
    ///
    /// # Errors
    /// When it is longer than `longest`.
    pub fn patience(&self, longest: Span) -> Result<Option<std::time::Duration>, ApiError> {
        let asked = self.timeout.unwrap_or(WAIT.min(longest));
        if asked > longest {
            let message = format!("timeout={asked} is too long: at most {longest} (limits.wait)");
            return Err(ApiError::bad_request("invalid_query", message));
        }
        Ok(self.wait.then_some(asked.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience(query: &str) -> Result<Option<u64>, String> {
        let uri = format!("http://x/?{query}").parse().unwrap();
        let wait = Query::<Wait>::try_from_uri(&uri).map_err(|error| error.body_text())?;
        let patience = wait
            .patience(Span::secs(600))
            .map_err(|error| error.body.error)?;
        Ok(patience.map(|patience| patience.as_secs()))
    }

    #[test]
    fn waiting_is_asked_for_and_bounded() {
        assert_eq!(patience(""), Ok(None));
        assert_eq!(patience("wait=false&timeout=5s"), Ok(None));
        assert_eq!(patience("wait=true"), Ok(Some(120)));
        assert_eq!(patience("wait=true&timeout=5s"), Ok(Some(5)));
        assert!(
            patience("wait=true&timeout=1h")
                .unwrap_err()
                .contains("limits.wait")
        );
        assert!(
            patience("wait=true&timeout=5")
                .unwrap_err()
                .contains("duration")
        );
        assert!(patience("waits=true").unwrap_err().contains("waits"));
    }
}
