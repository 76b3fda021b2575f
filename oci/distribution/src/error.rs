//! Why something was not done, as the OCI distribution specification words it ("Error Codes").

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use oci_spec::image::Digest;
use serde_json::{Value, json};

use crate::name::{BadName, Name};

/// Why something was not done.
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
    /// An upload's request makes no sense.
    #[error("the upload is invalid: {0}")]
    UploadInvalid(String),
    /// An upload that was never begun, has ended, or rested for too long.
    #[error("there is no upload {0}: it was never begun, has ended, or rested for too long")]
    UploadUnknown(String),
    /// Another request writes to the upload.
    #[error("another request is writing to the upload {0}")]
    UploadBusy(String),
    /// A piece of an upload does not follow what came before.
    #[error("the piece should begin at byte {expected}, and begins at byte {found}")]
    OutOfOrder {
        /// Bytes that came before.
        expected: u64,
        /// Where the piece says that it begins.
        found: u64,
    },
    /// A part of a blob was asked for that it does not have.
    #[error("the blob has {0} bytes: no such range")]
    NoSuchRange(u64),
    /// Content that does not have its digest, or a digest that is none.
    #[error("{0}")]
    DigestInvalid(String),
    /// A length that is not what was announced.
    #[error("{0}")]
    SizeInvalid(String),
    /// A manifest refers to what the repository does not have.
    #[error("the manifest refers to {digest}, which was not pushed to {name}")]
    ManifestBlobUnknown {
        /// The repository.
        name: Name,
        /// What is missing.
        digest: Digest,
    },
    /// A manifest makes no sense.
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
    /// Not a repository's name, or not a tag.
    #[error(transparent)]
    NameInvalid(#[from] BadName),
    /// Nothing was ever pushed there.
    #[error("there is no repository {0}")]
    NameUnknown(Name),
    /// A page's parameters make no sense.
    #[error("n={0:?} is not a number of results")]
    PageInvalid(String),
    /// The method does not go with the path.
    #[error("{0}")]
    Unsupported(String),
    /// A bound of [`crate::Limits`] is exceeded.
    #[error("{what} is larger than the limit of {limit} bytes")]
    TooLarge {
        /// What was measured.
        what: &'static str,
        /// Bytes.
        limit: u64,
    },
    /// As many as there may be.
    #[error("there are {limit} {what} already, as many as the registry allows")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// The bound.
        limit: u64,
    },
    /// Nothing was received for too long.
    #[error("nothing was received for too long: the request was given up")]
    Idle,
    /// The connection broke.
    #[error("the request was cut off half-way: {0}")]
    CutOff(String),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] tucano_oci_image::Error),
    /// The database of references refused.
    #[error("the registry's database refused: {0}")]
    Database(#[from] rusqlite::Error),
    /// The database of references is of a newer program.
    #[error("the registry's database has schema {found}, this program knows {known}")]
    Newer {
        /// The schema in the file.
        found: i64,
        /// The newest schema that this program knows.
        known: i64,
    },
    /// Work on a thread of its own failed.
    #[error("the registry failed: {0}")]
    Failed(String),
}

impl Error {
    /// The identifier of the specification, or one beside them where it has none.
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

    /// Whether room on the disk would have helped.
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
