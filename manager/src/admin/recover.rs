//! The last resort: a restart without state that was acknowledged, by the word of an operator.

use super::types::{EventKind, Recover};
use super::{Api, Refusal};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use quintet_vsync::Position;

pub(super) async fn recover(
    State(api): State<Api>,
    Json(request): Json<Recover>,
) -> Result<Json<Recover>, Refusal> {
    let shared = &api.shared;
    let owed: Position = request.owed.parse().map_err(|why| {
        let what = format!("{:?} is no position", request.owed);
        Refusal::new(StatusCode::BAD_REQUEST, what, "nothing was changed", why)
    })?;
    if !shared.live.load().as_ref().is_some_and(|live| live.node.recover(owed)) {
        return Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("node {} does not wait for state up to {owed}", shared.config.node),
            "nothing was changed: only what quintet status shows as owed can be given up",
            "look at quintet status",
        ));
    }
    let what = format!("an operator gave up what was acknowledged and is not here, up to {owed}");
    shared.events.note(EventKind::Node, what);
    Ok(Json(request))
}
