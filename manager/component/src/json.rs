//! Requests and replies as JSON, for people and scripts: protobuf's canonical JSON mapping.
//!
//! The mapping is the one of every gRPC tool: 64-bit integers are strings in output (`"1000"`)
//! because JavaScript and jq lose digits of larger numbers, and both forms are taken in input;
//! `bytes` are base64. Fields at their default are shown, so that a balance of 0 is seen.

use prost::Message;
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, SerializeOptions};

use crate::{Context, Error, Instance, Method, Status};

impl Method {
    /// The request that a JSON object means, as protobuf bytes.
    pub fn json_to_request(&self, json: &str) -> Result<Vec<u8>, Error> {
        let descriptor = self.descriptor().input();
        let fail = |reason: String| {
            Error::new(format!(
                "not a {}: {reason}\n{} takes {}",
                descriptor.name(),
                self.name(),
                shape(&descriptor)
            ))
        };
        let mut input = serde_json::Deserializer::from_str(json);
        let message = DynamicMessage::deserialize(descriptor.clone(), &mut input)
            .and_then(|message| input.end().map(|()| message))
            .map_err(|error| fail(error.to_string()))?;
        Ok(message.encode_to_vec())
    }

    /// A request as one line of JSON.
    pub fn request_to_json(&self, request: &[u8]) -> Result<String, Error> {
        to_json(self.descriptor().input(), request)
    }

    /// A reply as one line of JSON.
    pub fn reply_to_json(&self, reply: &[u8]) -> Result<String, Error> {
        to_json(self.descriptor().output(), reply)
    }

    /// Calls this method of `instance` with JSON, as `quintet call` does: for tests of components.
    pub fn call_json(
        &self,
        instance: &mut dyn Instance,
        context: &Context,
        json: &str,
    ) -> Result<String, Status> {
        let request =
            self.json_to_request(json).map_err(|e| Status::invalid_argument(e.to_string()))?;
        let reply = match self.kind() {
            crate::Kind::Update => instance.update(self.id(), context, &request),
            crate::Kind::Read => instance.read(self.id(), context, &request),
        }?;
        self.reply_to_json(&reply).map_err(|e| Status::internal(e.to_string()))
    }
}

fn to_json(descriptor: MessageDescriptor, bytes: &[u8]) -> Result<String, Error> {
    let name = descriptor.full_name().to_owned();
    let message = DynamicMessage::decode(descriptor, bytes).map_err(|error| {
        Error::new(format!("{} bytes that are not a {name}: {error}", bytes.len()))
    })?;
    let mut out = Vec::new();
    let options = SerializeOptions::new().skip_default_fields(false);
    message
        .serialize_with_options(&mut serde_json::Serializer::new(&mut out), &options)
        .map_err(|error| Error::new(format!("a {name} that has no JSON form: {error}")))?;
    String::from_utf8(out)
        .map_err(|_| Error::new(format!("a {name} that has no JSON form: not UTF-8")))
}

/// The fields of a message as a person would be told: `{"from": uint64, "young": [Animal]}`.
fn shape(descriptor: &MessageDescriptor) -> String {
    let fields: Vec<String> = descriptor
        .fields()
        .map(|field| {
            let kind = match field.kind() {
                Kind::Message(entry) if field.is_map() => format!(
                    "{{{}: {}}}",
                    kind_name(&entry.map_entry_key_field().kind()),
                    kind_name(&entry.map_entry_value_field().kind())
                ),
                kind if field.is_list() => format!("[{}]", kind_name(&kind)),
                kind => kind_name(&kind),
            };
            format!("\"{}\": {kind}", field.json_name())
        })
        .collect();
    format!("{{{}}}", fields.join(", "))
}

fn kind_name(kind: &Kind) -> String {
    match kind {
        Kind::Message(message) => message.name().to_owned(),
        Kind::Enum(values) => values.name().to_owned(),
        scalar => format!("{scalar:?}").to_ascii_lowercase(),
    }
}
