//! Errors with the codes of the OCI distribution specification ("Error Codes").

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use oci_spec::image::Digest;
use serde_json::{Value, json};

use crate::name::{BadName, Name};

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The repository has no such blob.
    #[error("{name} has no blob {digest}")]
    BlobUnknown {
        /// The repository.
        name: Name,
        /// The blob.
        digest: Digest,
    },
    /// A malformed upload request.
    #[error("the upload is invalid: {0}")]
    UploadInvalid(String),
    /// An upload that does not exist, has ended, or has expired.
    #[error("there is no upload {0}: it does not exist, has ended, or has expired")]
    UploadUnknown(String),
    /// Another request writes to the upload.
    #[error("another request is writing to the upload {0}")]
    UploadBusy(String),
    /// A piece of an upload does not follow the previous one.
    #[error("the piece begins at byte {found}, but the upload continues at byte {expected}")]
    OutOfOrder {
        /// Bytes received before.
        expected: u64,
        /// The first byte of the piece.
        found: u64,
    },
    /// The requested range is outside of the blob.
    #[error("the blob has {0} bytes: no such range")]
    NoSuchRange(u64),
    /// Content that does not match its digest, or a malformed digest.
    #[error("{0}")]
    DigestInvalid(String),
    /// The length differs from the announced one.
    #[error("{0}")]
    SizeInvalid(String),
    /// A manifest refers to content that the repository does not have.
    #[error("the manifest refers to {digest}, which was not pushed to {name}")]
    ManifestBlobUnknown {
        /// The repository.
        name: Name,
        /// The missing digest.
        digest: Digest,
    },
    /// A malformed manifest.
    #[error("the manifest is invalid: {0}")]
    ManifestInvalid(String),
    /// No such manifest or tag.
    #[error("{name} has no manifest {reference}")]
    ManifestUnknown {
        /// The repository.
        name: Name,
        /// A tag or digest.
        reference: String,
    },
    /// A malformed repository name or tag.
    #[error(transparent)]
    NameInvalid(#[from] BadName),
    /// The repository has no content.
    #[error("there is no repository {0}")]
    NameUnknown(Name),
    /// Malformed page parameters.
    #[error("n={0:?} is not a number of results")]
    PageInvalid(String),
    /// The path does not support the method.
    #[error("{0}")]
    Unsupported(String),
    /// A limit of [`crate::Limits`] is exceeded.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Bytes.
        limit: u64,
    },
    /// The limit of their number is reached.
    #[error("there are {limit} {what} already, as many as the registry allows")]
    TooMany {
        /// What is limited.
        what: &'static str,
        /// The limit.
        limit: u64,
    },
    /// The client was silent for too long.
    #[error("the client was silent for too long")]
    Idle,
    /// The connection broke.
    #[error("the request was cut off half-way: {0}")]
    CutOff(String),
    /// An error of the store.
    #[error(transparent)]
    Store(#[from] tucano_oci_image::Error),
    /// An error of the database of references.
    #[error("the registry's database failed: {0}")]
    Database(#[from] rusqlite::Error),
    /// The database of references was written by a newer program.
    #[error("the registry's database has schema {found}, this program knows {known}")]
    Newer {
        /// The schema in the file.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// Blocking work failed.
    #[error("the registry failed: {0}")]
    Failed(String),
}

impl Error {
    /// The specification's error code, or one of our own if it has none.
    pub fn code(&self) -> &'static str {
        match self {
            Self::BlobUnknown { .. } => "BLOB_UNKNOWN",
            Self::UploadInvalid(_) | Self::UploadBusy(_) | Self::OutOfOrder { .. } => {
                "BLOB_UPLOAD_INVALID"
            }
            Self::Idle | Self::CutOff(_) => "BLOB_UPLOAD_INVALID",
            Self::UploadUnknown(_) => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid(_) => "DIGEST_INVALID",
            Self::NameInvalid(BadName::Digest(_)) => "DIGEST_INVALID",
            Self::SizeInvalid(_) | Self::TooLarge { .. } => "SIZE_INVALID",
            Self::NoSuchRange(_) => "RANGE_INVALID",
            Self::ManifestBlobUnknown { .. } => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid(_) => "MANIFEST_INVALID",
            Self::ManifestUnknown { .. } => "MANIFEST_UNKNOWN",
            Self::NameInvalid(BadName::Tag(_)) => "TAG_INVALID",
            Self::NameInvalid(_) => "NAME_INVALID",
            Self::NameUnknown(_) => "NAME_UNKNOWN",
            Self::PageInvalid(_) => "PAGINATION_NUMBER_INVALID",
            Self::Unsupported(_) => "UNSUPPORTED",
            Self::TooMany {
                what: "uploads", ..
            } => "TOOMANYREQUESTS",
            Self::TooMany { .. } => "DENIED",
            _ if self.is_full() => "DISK_FULL",
            Self::Store(error) if error.code() == "digest_mismatch" => "DIGEST_INVALID",
            Self::Store(_) | Self::Database(_) | Self::Newer { .. } | Self::Failed(_) => "UNKNOWN",
        }
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::BlobUnknown { .. }
            | Self::UploadUnknown(_)
            | Self::ManifestUnknown { .. }
            | Self::NameUnknown(_) => StatusCode::NOT_FOUND,
            Self::UploadBusy(_) => StatusCode::CONFLICT,
            Self::OutOfOrder { .. } | Self::NoSuchRange(_) => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Unsupported(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooMany {
                what: "uploads", ..
            } => StatusCode::TOO_MANY_REQUESTS,
            Self::TooMany { .. } => StatusCode::FORBIDDEN,
            Self::Idle => StatusCode::REQUEST_TIMEOUT,
            _ if self.is_full() => StatusCode::INSUFFICIENT_STORAGE,
            _ if self.code() == "UNKNOWN" => StatusCode::INTERNAL_SERVER_ERROR,
            _ => StatusCode::BAD_REQUEST,
        }
    }

    /// Whether the disk or the database is full.
    pub fn is_full(&self) -> bool {
        match self {
            Self::Store(error) => error.code() == "disk_full",
            Self::Database(error) => {
                error.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull)
            }
            _ => false,
        }
    }

    fn detail(&self) -> Value {
        match self {
            Self::BlobUnknown { name, digest } | Self::ManifestBlobUnknown { name, digest } => {
                json!({"name": name.as_str(), "digest": digest.to_string()})
            }
            Self::ManifestUnknown { name, reference } => {
                json!({"name": name.as_str(), "reference": reference})
            }
            Self::NameUnknown(name) => json!({"name": name.as_str()}),
            Self::OutOfOrder { expected, .. } => json!({"expected": expected}),
            _ => Value::Null,
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if self.status().is_server_error() {
            tracing::error!(error = %self, "the registry cannot do what was asked");
        }
        let mut entry = json!({"code": self.code(), "message": self.to_string()});
        let detail = self.detail();
        if !detail.is_null() {
            entry["detail"] = detail;
        }
        (self.status(), Json(json!({"errors": [entry]}))).into_response()
    }
}
