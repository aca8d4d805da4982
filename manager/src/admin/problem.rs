//! Refusals that a person can use.

use super::types::Problem;
use crate::runtime::{SendFailed, Shared};
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// A status and a [`Problem`].
#[derive(Debug)]
pub(super) struct Refusal(StatusCode, Problem);

impl Refusal {
    pub(super) fn new(
        status: StatusCode,
        what: impl Into<String>,
        means: impl Into<String>,
        fix: impl Into<String>,
    ) -> Refusal {
        Refusal(status, Problem { what: what.into(), means: means.into(), fix: fix.into() })
    }

    /// This node is not a member now.
    pub(super) fn not_serving(shared: &Shared) -> Refusal {
        let standing = shared.standing.borrow().clone();
        let state = format!("{:?}", standing.state).to_lowercase();
        let reason = standing.reason.map_or_else(String::new, |r| format!(": {r}"));
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("node {} is {state}{reason}", shared.config.node),
            "it may not change or answer anything until it is a member of the primary view",
            "ask another node, or wait; quintet status shows when it is back",
        )
    }

    pub(super) fn no_route() -> Refusal {
        Refusal::new(
            StatusCode::NOT_FOUND,
            "there is no such route",
            "the address is misspelt, or this daemon is older than the tool",
            "compare quintet --version with the version in quintet status",
        )
    }

    /// Something took too long.
    pub(super) fn too_late(what: impl Into<String>, fix: impl Into<String>) -> Refusal {
        let means = "it may still happen: the order was sent to the group";
        Refusal::new(StatusCode::GATEWAY_TIMEOUT, what, means, fix)
    }
}

impl From<SendFailed> for Refusal {
    fn from(failed: SendFailed) -> Refusal {
        Refusal::new(
            StatusCode::SERVICE_UNAVAILABLE,
            failed.to_string(),
            "nothing was changed",
            "try again, or ask another node",
        )
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}
