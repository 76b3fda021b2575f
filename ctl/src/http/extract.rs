//! Extractors whose rejections are the API's errors.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::request::Parts,
};
use serde::{Deserialize, de::DeserializeOwned};
use tucano_api::units::Span;
use utoipa::IntoParams;

use super::errors::ApiError;

/// Default `timeout` of `wait=true`.
const DEFAULT_TIMEOUT: Span = Span::secs(120);

/// The path's parameter, parsed.
#[derive(Debug)]
pub struct PathParam<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathParam<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Path(value) = Path::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::not_found(error.body_text()))?;
        Ok(Self(value))
    }
}

/// The query string, parsed.
#[derive(Debug)]
pub struct QueryParams<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for QueryParams<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let Query(value) = Query::from_request_parts(parts, state)
            .await
            .map_err(|error| ApiError::bad_request("invalid_query", error.body_text()))?;
        Ok(Self(value))
    }
}

/// Whether to wait for the effect of a request.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub struct Wait {
    /// Answer when the request has taken effect.
    wait: bool,
    /// Longest wait; 120s by default.
    #[param(value_type = Option<String>)]
    timeout: Option<Span>,
}

impl Wait {
    /// For queries with more parameters.
    pub fn new(wait: bool, timeout: Option<Span>) -> Self {
        Self { wait, timeout }
    }

    /// How long to wait, if at all.
    ///
    /// # Errors
    /// It is longer than `longest`.
    pub fn max_wait(&self, longest: Span) -> Result<Option<std::time::Duration>, ApiError> {
        let asked = self.timeout.unwrap_or(DEFAULT_TIMEOUT.min(longest));
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

    fn max_wait(query: &str) -> Result<Option<u64>, String> {
        let uri = format!("http://x/?{query}").parse().unwrap();
        let wait = Query::<Wait>::try_from_uri(&uri).map_err(|error| error.body_text())?;
        let max_wait = wait
            .max_wait(Span::secs(600))
            .map_err(|error| error.body.error)?;
        Ok(max_wait.map(|max_wait| max_wait.as_secs()))
    }

    #[test]
    fn waiting_is_optional_and_bounded() {
        assert_eq!(max_wait(""), Ok(None));
        assert_eq!(max_wait("wait=false&timeout=5s"), Ok(None));
        assert_eq!(max_wait("wait=true"), Ok(Some(120)));
        assert_eq!(max_wait("wait=true&timeout=5s"), Ok(Some(5)));
        assert!(
            max_wait("wait=true&timeout=1h")
                .unwrap_err()
                .contains("limits.wait")
        );
        assert!(
            max_wait("wait=true&timeout=5")
                .unwrap_err()
                .contains("duration")
        );
        assert!(max_wait("waits=true").unwrap_err().contains("waits"));
    }
}
