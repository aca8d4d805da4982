//! Who may come in through loopback TCP.
//!
//! The Unix socket has an owner and a mode; a TCP port on loopback has neither. Every user of the machine reaches it,
//! and so does every web page that a browser on it has open: a page may send a request to 127.0.0.1, and with a name
//! of its own that resolves to 127.0.0.1 it may even read the answer. So, before a handler sees anything:
//!
//! 1. `Host` must be a loopback address or `localhost`: a page that came in by a name of its own is turned away.
//! 2. There must be no `Origin`: browsers add it to what a page sends, and no tool does.
//! 3. What changes something needs the token, which only who may read the data directory knows.

use super::Refusal;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header, uri::Authority};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Name of the token's file in the data directory.
pub const TOKEN_FILE: &str = "admin.token";

/// What a request that changes something must bring, as `Authorization: Bearer TOKEN`.
#[derive(Clone)]
pub struct Token {
    file: Arc<Path>,
    text: Arc<str>,
}

impl Token {
    /// Makes a new one and writes it to [`TOKEN_FILE`] in `dir`, readable for the owner alone. `Err` names the file.
    pub fn create(dir: &Path) -> Result<Token, (PathBuf, io::Error)> {
        let file = dir.join(TOKEN_FILE);
        let written = || {
            let mut bytes = [0; 32];
            getrandom::fill(&mut bytes).map_err(io::Error::other)?;
            let text = bytes.iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            });
            // Beside and renamed, so that nobody reads a half one and no mode is left from an older file.
            let new = file.with_extension("new");
            let _ = std::fs::remove_file(&new);
            let mut out =
                std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            writeln!(out, "{text}")?;
            std::fs::rename(&new, &file)?;
            Ok(text)
        };
        match written() {
            Ok(text) => Ok(Token { file: file.into(), text: text.into() }),
            Err(error) => Err((file, error)),
        }
    }

    fn is_brought(&self, headers: &HeaderMap) -> bool {
        let Some(value) = headers.get(header::AUTHORIZATION) else { return false };
        let Some((scheme, brought)) = value.to_str().ok().and_then(|value| value.split_once(' '))
        else {
            return false;
        };
        // All of it is compared, so that the time taken does not tell how much of a guess was right.
        let (brought, own) = (brought.trim().as_bytes(), self.text.as_bytes());
        let differ = own.iter().zip(brought).fold(0, |differ, (a, b)| differ | (a ^ b));
        scheme.eq_ignore_ascii_case("bearer") && brought.len() == own.len() && differ == 0
    }
}

/// What is sent says what it is; the types are none that a web page may send without asking first.
pub(super) async fn typed(request: Request, next: Next) -> Response {
    let package = request.uri().path() == "/v1/components";
    let wanted = if package { "application/x-tar" } else { "application/json" };
    let said = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = said.and_then(|said| said.split(';').next()).unwrap_or_default().trim();
    if request.method() != Method::POST || essence.eq_ignore_ascii_case(wanted) {
        return next.run(request).await;
    }
    let refusal = Refusal::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        format!("the content-type is {}", said.unwrap_or("missing")),
        "the request was not looked at, nothing was changed",
        format!("send content-type: {wanted}"),
    );
    refusal.into_response()
}

/// Lets a request in, or says what is missing.
pub(super) async fn watch(State(token): State<Token>, request: Request, next: Next) -> Response {
    match judge(&token, request.method(), request.uri(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn judge(token: &Token, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Refusal> {
    let refuse = |status, what: String, fix: String| {
        Err(Refusal::new(status, what, "the request was not looked at, nothing was changed", fix))
    };
    let named = headers.get_all(header::HOST).iter().map(|host| host.to_str().ok());
    let mut hosts = named.chain(uri.authority().map(|at| Some(at.as_str()))).peekable();
    if hosts.peek().is_none() || !hosts.all(|host| host.is_some_and(is_loopback)) {
        return refuse(
            StatusCode::FORBIDDEN,
            "the request is for another host than this one".into(),
            "address the daemon as http://127.0.0.1:PORT or http://localhost:PORT".into(),
        );
    }
    if headers.contains_key(header::ORIGIN) {
        return refuse(
            StatusCode::FORBIDDEN,
            "the request comes from a web page (it has an Origin)".into(),
            "use quintet, curl or a program: pages are not let in".into(),
        );
    }
    if ![Method::GET, Method::HEAD].contains(method) && !token.is_brought(headers) {
        return refuse(
            StatusCode::UNAUTHORIZED,
            format!("{method} over TCP needs this daemon's token"),
            format!(
                "give quintet --token-file {0}, or send `Authorization: Bearer` with what is in it; each start of the \
                 daemon makes a new one",
                token.file.display()
            ),
        );
    }
    Ok(())
}

/// Is it a loopback address or `localhost`, with or without a port? Any port: it may come through a tunnel.
fn is_loopback(host: &str) -> bool {
    let Ok(host) = host.parse::<Authority>() else { return false };
    let name = host.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    // "user@127.0.0.1" is no host.
    !host.as_str().contains('@')
        && ip.map_or(name.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn names_of_this_machine_and_no_others_are_loopback() {
        for good in ["127.0.0.1:7301", "127.0.0.1", "[::1]:80", "localhost", "LOCALHOST:9"] {
            assert!(is_loopback(good), "{good}");
        }
        let bad =
            ["evil.example", "127.0.0.1.evil.example:7301", "x@127.0.0.1", "0.0.0.0:1", "", "a b"];
        for bad in bad.iter().chain(&["10.0.0.1:80", "localhost.evil.example", "[::2]:80"]) {
            assert!(!is_loopback(bad), "{bad}");
        }
    }

    #[test]
    fn the_token_is_its_owners_alone_and_new_at_each_start() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(TOKEN_FILE);
        std::fs::write(&file, "known to all").unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        let first = Token::create(dir.path()).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let second = Token::create(dir.path()).unwrap();
        assert_ne!(first.text, second.text);
        assert_eq!(std::fs::read_to_string(&file).unwrap().trim(), &*second.text);

        let brings = |value: String| {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
            second.is_brought(&headers)
        };
        assert!(brings(format!("Bearer {}", second.text)));
        assert!(brings(format!("bearer {}", second.text)));
        assert!(!second.is_brought(&HeaderMap::new()));
        let longer = format!("{}0", second.text);
        for wrong in [&*first.text, &second.text[1..], "", &*longer] {
            assert!(!brings(format!("Bearer {wrong}")), "{wrong}");
        }
        assert!(!brings(format!("Basic {}", second.text)));
    }

    #[test]
    fn a_place_where_no_token_can_be_written_is_named() {
        let (file, _) = Token::create(Path::new("/proc/nowhere")).err().unwrap();
        assert_eq!(file, Path::new("/proc/nowhere/admin.token"));
    }
}
