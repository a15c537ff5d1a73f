//! The words of the admin API that both of its ends and `--json` use: error bodies and status codes.

use hyper::StatusCode;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Kind};

/// An error on the wire: `{"error":{"kind":"timeout","text":"…"}}`.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    error: ErrorWords,
}

#[derive(Debug, Serialize, Deserialize)]
struct ErrorWords {
    kind: String,
    text: String,
}

impl From<&Error> for ErrorBody {
    fn from(error: &Error) -> Self {
        Self { error: ErrorWords { kind: error.kind().name().to_owned(), text: error.text().to_owned() } }
    }
}

impl From<ErrorBody> for Error {
    /// A kind that this version does not know comes from a newer host and reads as `Internal`.
    fn from(body: ErrorBody) -> Self {
        Error::new(Kind::from_name(&body.error.kind).unwrap_or(Kind::Internal), body.error.text)
    }
}

/// The HTTP status that goes with a kind. Programs should read the kind; the status is for `curl --fail` and proxies.
pub fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Usage | Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Limit => StatusCode::PAYLOAD_TOO_LARGE,
        Kind::Busy => StatusCode::TOO_MANY_REQUESTS,
        Kind::Guest => StatusCode::BAD_GATEWAY,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::Storage => StatusCode::INSUFFICIENT_STORAGE,
        Kind::Config | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_survives_the_wire() {
        for kind in Kind::ALL {
            let error = Error::new(kind, "a \"quoted\" text\nof two lines");
            let json = serde_json::to_string(&ErrorBody::from(&error)).expect("JSON");
            let back: ErrorBody = serde_json::from_str(&json).expect("error body");
            assert_eq!(Error::from(back), error);
            assert!(status_of(kind).is_client_error() || status_of(kind).is_server_error());
        }
    }

    #[test]
    fn a_kind_of_a_newer_host_is_not_lost() {
        let body: ErrorBody = serde_json::from_str(r#"{"error":{"kind":"haunted","text":"boo"}}"#).expect("error body");
        assert_eq!(Error::from(body), Error::internal("boo"));
    }
}
