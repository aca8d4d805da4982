//! From a method's options to a policy, or to all the reasons why it cannot be one.
//!
//! Two kinds of reasons are kept apart. *Contradictions* can never be honoured: exactly-once
//! execution without a total order. What is *not served yet* has a meaning that this release does
//! not give; accepting it in silence would promise what is not kept. Options that are weaker than
//! what the platform does anyway (order FIFO, at most once) are accepted: stronger keeps the
//! promise.

use std::time::Duration;

use prost_reflect::{DynamicMessage, MethodDescriptor, ReflectMessage, ServiceDescriptor, Value};

use crate::options::{Call, Collate, Kind, MethodOptions, Order, Orphan, Read};

/// What is wrong with a service as a whole.
pub(super) fn check_service(service: &ServiceDescriptor) -> Result<(), String> {
    let Some(policy) = extension(&service.options(), service.parent_pool(), "quintet.service")?
    else {
        return Ok(());
    };
    match policy.get_field_by_name("inherits").as_deref() {
        Some(Value::List(parents)) if !parents.is_empty() => {
            Err("inherits is not served in this release: repeat the methods in this service"
                .to_owned())
        }
        _ => Ok(()),
    }
}

/// The options of a method, or every reason against them.
pub(super) fn read(method: &MethodDescriptor) -> Result<MethodOptions, Vec<String>> {
    let mut reasons = Vec::new();
    if method.is_client_streaming() || method.is_server_streaming() {
        reasons.push(
            "streaming methods are not served in this release: take and return one message"
                .to_owned(),
        );
    }
    let said = match extension(&method.options(), method.parent_pool(), "quintet.method")
        .and_then(Said::read)
    {
        Ok(said) => said,
        Err(reason) => {
            reasons.push(reason);
            return Err(reasons);
        }
    };
    reasons.extend(said.contradictions());
    reasons.extend(said.not_served());
    match said.kind {
        Some(kind) if reasons.is_empty() => Ok(said.fill(kind)),
        _ => Err(reasons),
    }
}

/// What the `.proto` says, before defaults: a contradiction with a default reads differently from
/// one between two things that were both said.
#[derive(Default)]
struct Said {
    kind: Option<Kind>,
    order: Option<Order>,
    stable: Option<bool>,
    call: Option<Call>,
    collate: Option<Collate>,
    orphan: Option<Orphan>,
    deadline: Option<Duration>,
    read: Option<Read>,
}

impl Said {
    fn read(policy: Option<DynamicMessage>) -> Result<Said, String> {
        let Some(policy) = policy else { return Ok(Said::default()) };
        Ok(Said {
            kind: choice(&policy, "kind", Kind::from_number)?,
            order: choice(&policy, "order", Order::from_number)?,
            stable: flag(&policy, "stable"),
            call: choice(&policy, "call", Call::from_number)?,
            collate: choice(&policy, "collate", Collate::from_number)?,
            orphan: choice(&policy, "orphan", Orphan::from_number)?,
            deadline: deadline(&policy)?,
            read: choice(&policy, "read", Read::from_number)?,
        })
    }

    fn contradictions(&self) -> Vec<String> {
        match self.kind {
            None => vec![
                "it is not said whether the method changes state: add option (quintet.method) = { kind: UPDATE } \
                 or { kind: READ }"
                    .to_owned(),
            ],
            Some(Kind::Read) => self.contradictions_of_a_read(),
            Some(Kind::Update) => self.contradictions_of_an_update(),
        }
    }

    fn contradictions_of_a_read(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(call @ (Call::ExactlyOnce | Call::AtMostOnce)) = self.call {
            reasons.push(format!(
                "kind: READ with call: {call}: a read changes nothing and may be repeated at will; leave call out"
            ));
        }
        if let Some(order) = self.order {
            reasons.push(format!(
                "kind: READ with order: {order}: a read is not ordered; how fresh it is says read: LOCAL or SESSION"
            ));
        }
        if let Some(stable) = self.stable {
            reasons.push(format!(
                "kind: READ with stable: {stable}: only updates are multicast; leave stable out"
            ));
        }
        if let Some(collate @ (Collate::All | Collate::Majority)) = self.collate {
            reasons.push(format!(
                "kind: READ with collate: {collate}: one replica answers a read, there is nothing to collate"
            ));
        }
        if let Some(orphan) = self.orphan {
            reasons.push(format!(
                "kind: READ with orphan: {orphan}: a read leaves nothing behind; leave orphan out"
            ));
        }
        reasons
    }

    fn contradictions_of_an_update(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Some(read) = self.read {
            reasons.push(format!(
                "kind: UPDATE with read: {read}: read says how fresh a READ is; leave it out"
            ));
        }
        let (call, how) = match self.call {
            Some(call) => (call, ""),
            None => (
                Call::ExactlyOnce,
                " (the default; say call: AT_LEAST_ONCE or AT_MOST_ONCE if that is meant)",
            ),
        };
        if call == Call::ExactlyOnce {
            if let Some(order @ (Order::None | Order::Fifo | Order::Causal)) = self.order {
                reasons.push(format!(
                    "call: EXACTLY_ONCE{how} with order: {order}: replicas know a repeated call by its place in one \
                     order; say order: TOTAL"
                ));
            }
            if self.stable == Some(false) {
                reasons.push(format!(
                    "call: EXACTLY_ONCE{how} with stable: false: an update that not every member has received is \
                     lost with the one that answered; say stable: true"
                ));
            }
        }
        reasons
    }

    fn not_served(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.kind == Some(Kind::Update) {
            if self.collate == Some(Collate::All) {
                reasons.push(
                    "collate: ALL is not served in this release: say FIRST or MAJORITY".to_owned(),
                );
            }
            if let Some(orphan @ (Orphan::Detect | Orphan::Terminate)) = self.orphan {
                reasons.push(format!("orphan: {orphan} is not served in this release: say IGNORE"));
            }
        }
        if self.kind == Some(Kind::Read) && self.read == Some(Read::Linearizable) {
            reasons.push(
                "read: LINEARIZABLE is not served in this release: say SESSION, or make the method an UPDATE"
                    .to_owned(),
            );
        }
        reasons
    }

    fn fill(self, kind: Kind) -> MethodOptions {
        let default = MethodOptions::new(kind);
        MethodOptions {
            kind,
            order: self.order.unwrap_or(default.order),
            stable: self.stable.unwrap_or(default.stable),
            call: self.call.unwrap_or(default.call),
            collate: self.collate.unwrap_or(default.collate),
            orphan: self.orphan.unwrap_or(default.orphan),
            deadline: self.deadline,
            read: self.read.unwrap_or(default.read),
        }
    }
}

/// The message in an extension of an options message, if it is set.
fn extension(
    options: &DynamicMessage,
    pool: &prost_reflect::DescriptorPool,
    name: &str,
) -> Result<Option<DynamicMessage>, String> {
    let Some(extension) = pool.get_extension_by_name(name) else { return Ok(None) };
    if extension.containing_message() != options.descriptor() || !options.has_extension(&extension)
    {
        return Ok(None);
    }
    match options.get_extension(&extension).into_owned() {
        Value::Message(message) => Ok(Some(message)),
        _ => Err(format!("({name}) is not the option of quintet/options.proto: import that file")),
    }
}

fn choice<T>(
    policy: &DynamicMessage,
    field: &str,
    from_number: fn(i32) -> Option<T>,
) -> Result<Option<T>, String> {
    match policy.get_field_by_name(field).as_deref() {
        None | Some(Value::EnumNumber(0)) => Ok(None),
        Some(Value::EnumNumber(number)) => from_number(*number).map(Some).ok_or_else(|| {
            format!("{field} has the value {number}, which this release does not know")
        }),
        Some(_) => Err(format!("{field} is not an enumeration: import quintet/options.proto")),
    }
}

fn flag(policy: &DynamicMessage, field: &str) -> Option<bool> {
    if !policy.has_field_by_name(field) {
        return None;
    }
    policy.get_field_by_name(field)?.as_bool()
}

fn deadline(policy: &DynamicMessage) -> Result<Option<Duration>, String> {
    let text = match policy.get_field_by_name("deadline").as_deref() {
        Some(Value::String(text)) if !text.is_empty() => text.clone(),
        _ => return Ok(None),
    };
    parse_duration(&text).filter(|duration| !duration.is_zero()).map(Some).ok_or_else(|| {
        format!("deadline: \"{text}\" is no duration: write \"500ms\", \"2s\", \"1.5s\" or \"1m\"")
    })
}

/// `500ms`, `2s`, `1.5s`, `1m`, `250us`, `1h`.
fn parse_duration(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = text.split_at(unit_at);
    let unit_s = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    Duration::try_from_secs_f64(number * unit_s).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_write_them() {
        assert_eq!(parse_duration("2s"), Some(Duration::from_secs(2)));
        assert_eq!(parse_duration("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("1m"), Some(Duration::from_secs(60)));
        for wrong in
            ["", "2", "s", "2 s", "-2s", "2sec", "1.2.3s", "99999999999999999999999999h", "é2s"]
        {
            assert_eq!(parse_duration(wrong), None, "{wrong}");
        }
    }
}
