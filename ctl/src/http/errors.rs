//! The API's errors: a status, a code for programs, a message for people.

use std::fmt::Display;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use tucano_api::error::ErrorBody;

use crate::{
    agent_mgr::{CertificateDenied, ReportError},
    body::BodyError,
    config_mgr::reload::ReloadError,
    deployer::{DeployError, remote_image::pull_failure, upload::UploadError},
    secrets::SecretError,
    state_loop::Refused,
};

/// A handler's error response.
#[derive(Debug)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// Code and message.
    pub body: ErrorBody,
}

impl ApiError {
    /// An error with this status, code and message.
    pub fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            body: ErrorBody::new(code, message),
        }
    }

    /// 400 with this code.
    pub fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 403: the caller's certificate is another's.
    pub fn cannot_act(code: &str, caller: impl Display, whom: impl Display) -> Self {
        let message = format!("{caller} cannot act for {whom}");
        Self::new(StatusCode::FORBIDDEN, code, message)
    }

    /// 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not_found", message)
    }

    /// 502: a node's agent cannot be reached or refuses.
    pub fn agent_unreachable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, "agent_unreachable", message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let (status, code) = match refused {
            Refused::Full(_) => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            Refused::Store(_) => (StatusCode::INTERNAL_SERVER_ERROR, "store_failed"),
            Refused::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping"),
        };
        Self::new(status, code, refused.to_string())
    }
}

impl From<BodyError> for ApiError {
    fn from(error: BodyError) -> Self {
        let (status, code) = match error {
            BodyError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "too_large"),
            BodyError::Idle(_) | BodyError::Slow(_) => {
                (StatusCode::REQUEST_TIMEOUT, "request_timeout")
            }
            BodyError::CutOff(_) => (StatusCode::BAD_REQUEST, "cut_off"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// A well-formed image that is not supported is 422, a malformed one 400.
fn image_error(error: &tucano_oci_image::Error, message: String) -> ApiError {
    let status = match error.code() {
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "disk_full" => StatusCode::INSUFFICIENT_STORAGE,
        "not_found" | "wrong_architecture" | "unsupported" | "cannot_run" => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        "io" => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    ApiError::new(status, error.code(), message)
}

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        let message = error.to_string();
        match error {
            UploadError::Config(_) | UploadError::NoConfig => {
                Self::bad_request("invalid_config", message)
            }
            UploadError::UnknownPart(_) => Self::bad_request("unknown_part", message),
            UploadError::Twice(_) => Self::bad_request("part_twice", message),
            UploadError::NameTooLate(_) => Self::bad_request("image_name_too_late", message),
            UploadError::TwoImages => Self::bad_request("two_images", message),
            UploadError::Body(error) => error.into(),
            UploadError::Multipart(_) => Self::bad_request("cut_off", message),
            UploadError::TooMany(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_uploads", message)
            }
            UploadError::Image(error) => image_error(&error, message),
        }
    }
}

impl From<DeployError> for ApiError {
    fn from(error: DeployError) -> Self {
        let message = error.to_string();
        match error {
            DeployError::Config(_) => Self::bad_request("invalid_config", message),
            DeployError::NoImage { .. } => Self::bad_request("no_image", message),
            DeployError::NoSuchImage { .. } => {
                Self::new(StatusCode::NOT_FOUND, "no_such_image", message)
            }
            DeployError::Registry(error) if error.is_full() => {
                Self::new(StatusCode::INSUFFICIENT_STORAGE, "disk_full", message)
            }
            DeployError::Registry(_) => Self::new(StatusCode::INTERNAL_SERVER_ERROR, "io", message),
            DeployError::Image(error)
            | DeployError::Pull(tucano_oci_distribution::client::Error::Store(error)) => {
                image_error(&error, message)
            }
            DeployError::Pull(error) => {
                let (status, code) = pull_failure(&error);
                let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
                Self::new(status, code, message)
            }
            DeployError::MountedImage { source, .. }
            | DeployError::NoSuchImageEither { source, .. }
            | DeployError::OfService { source, .. } => {
                let source = Self::from(*source);
                Self::new(source.status, &source.body.code, message)
            }
            DeployError::RevisionChanged { .. } => {
                Self::new(StatusCode::CONFLICT, "revision_changed", message)
            }
            DeployError::Twice(_) => Self::bad_request("invalid_config", message),
            DeployError::TooManyTogether(..) => {
                Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
            }
            DeployError::NoSuchRevision { .. } => {
                Self::new(StatusCode::NOT_FOUND, "no_such_revision", message)
            }
            DeployError::BadName(_) => Self::bad_request("no_image", message),
            DeployError::UnknownRegistry { .. } => Self::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "unknown_registry",
                message,
            ),
            DeployError::TooManyUploads(_) => {
                Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_uploads", message)
            }
            DeployError::DoesNotFit(_) | DeployError::CannotBePlaced(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "does_not_fit", message)
            }
            DeployError::UnknownService(_) => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "unknown_service", message)
            }
            DeployError::Names(_) => Self::new(StatusCode::CONFLICT, "names", message),
            DeployError::NoProcesses(_) => Self::new(StatusCode::CONFLICT, "job", message),
            DeployError::Needed(_) => Self::new(StatusCode::CONFLICT, "needed", message),
            DeployError::InUse(_) => Self::new(StatusCode::CONFLICT, "limit_in_use", message),
            DeployError::NoSuchSecret { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "no_such_secret", message)
            }
            DeployError::SecretRemoved { .. } => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "secret_removed", message)
            }
            DeployError::Secret(error) => error.into(),
            DeployError::HostTaken(_) => Self::new(StatusCode::CONFLICT, "host_taken", message),
            DeployError::NotFound(_) => Self::not_found(message),
            DeployError::TooManyServices(..) => {
                Self::new(StatusCode::CONFLICT, "too_many_services", message)
            }
            DeployError::Refused(refused) => refused.into(),
        }
    }
}

impl From<SecretError> for ApiError {
    fn from(error: SecretError) -> Self {
        let message = error.to_string();
        let conflict = |code| Self::new(StatusCode::CONFLICT, code, message.clone());
        match error {
            SecretError::NotFound(_) => Self::not_found(message),
            SecretError::InUse { .. } => conflict("secret_in_use"),
            SecretError::Running { .. } => conflict("secret_in_use"),
            SecretError::EnvironmentTooLarge { .. } => conflict("environment_too_large"),
            SecretError::Removed(_) => Self::new(StatusCode::NOT_FOUND, "secret_removed", message),
            SecretError::NotAVariable { .. } => conflict("not_a_variable"),
            SecretError::TooMany(_) => conflict("too_many_secrets"),
            SecretError::Empty(_) => Self::bad_request("empty_secret", message),
            SecretError::NeedsTls => {
                Self::new(StatusCode::UNPROCESSABLE_ENTITY, "needs_tls", message)
            }
            SecretError::NotNeeded { .. } => {
                Self::new(StatusCode::FORBIDDEN, "secret_not_needed", message)
            }
            SecretError::Vault(_) => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "secret_unreadable",
                message,
            ),
            SecretError::Refused(refused) => refused.into(),
        }
    }
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::UnknownNode { .. } => {
                Self::new(StatusCode::FORBIDDEN, "unknown_node", error.to_string())
            }
            ReportError::Unconfirmed { .. } => {
                Self::new(StatusCode::CONFLICT, "unconfirmed_agent", error.to_string())
            }
            ReportError::Superseded { .. } => {
                Self::new(StatusCode::CONFLICT, "superseded_agent", error.to_string())
            }
            ReportError::AbsurdSequence { .. } => {
                Self::new(StatusCode::CONFLICT, "absurd_sequence", error.to_string())
            }
            ReportError::Refused(refused) => refused.into(),
        }
    }
}

impl From<CertificateDenied> for ApiError {
    fn from(error: CertificateDenied) -> Self {
        let code = match error {
            CertificateDenied::Unknown { .. } => "unknown_node",
            CertificateDenied::Loopback { .. } => "loopback_node",
            CertificateDenied::AddressMismatch { .. } => "another_address",
        };
        Self::new(StatusCode::FORBIDDEN, code, error.to_string())
    }
}

impl From<ReloadError> for ApiError {
    fn from(error: ReloadError) -> Self {
        let message = error.to_string();
        let refused = |code| Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message.clone());
        match error {
            ReloadError::Invalid(_) | ReloadError::Unprotected { .. } => refused("invalid_config"),
            ReloadError::NeedsRestart { .. } => refused("needs_restart"),
            ReloadError::Refused(error) => error.into(),
        }
    }
}
