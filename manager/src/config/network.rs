//! Addresses of the transport, one per network that a node is in, and interfaces in their place.

use quintet_transport::{Interface, interfaces};
use serde::de::{self, SeqAccess, Visitor};
use serde::ser::SerializeSeq as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::marker::PhantomData;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// One value or a list of them; one is written as such.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct OneOrMore<T>(pub Vec<T>);

/// Transport addresses of a node, the best first.
pub type AddressList = OneOrMore<SocketAddr>;

impl<T> Default for OneOrMore<T> {
    fn default() -> Self {
        OneOrMore(Vec::new())
    }
}

impl<T> OneOrMore<T> {
    /// There is none: it was not said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, T> {
        self.0.iter()
    }
}

impl AddressList {
    /// The best.
    ///
    /// # Panics
    /// If there is none, which no checked configuration has.
    pub fn first(&self) -> SocketAddr {
        self.0[0]
    }
}

impl<T> From<T> for OneOrMore<T> {
    fn from(one: T) -> Self {
        OneOrMore(vec![one])
    }
}

impl<T: FromStr> FromStr for OneOrMore<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.parse().map(|one| OneOrMore(vec![one]))
    }
}

impl<T: fmt::Display> fmt::Display for OneOrMore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0.iter().map(T::to_string).collect::<Vec<_>>().join(", "))
    }
}

impl<T: fmt::Display> Serialize for OneOrMore<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let [one] = &self.0[..] {
            return serializer.collect_str(one);
        }
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        self.0.iter().try_for_each(|each| list.serialize_element(&each.to_string()))?;
        list.end()
    }
}

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for OneOrMore<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either<T>(PhantomData<T>);
        impl<'de, T: FromStr<Err: fmt::Display>> Visitor<'de> for Either<T> {
            type Value = OneOrMore<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string or a list of strings")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
                text.parse().map_err(|why| E::custom(format_args!("{text:?}: {why}")))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut all = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    let one = text
                        .parse()
                        .map_err(|why| de::Error::custom(format_args!("{text:?}: {why}")))?;
                    all.push(one);
                }
                Ok(OneOrMore(all))
            }
        }
        deserializer.deserialize_any(Either(PhantomData))
    }
}

/// An interface, by its name or by a network that it has an address in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InterfaceChoice {
    /// `eth1`.
    Name(String),
    /// `10.1.0.0/16`.
    Subnet(IpAddr, u8),
}

impl FromStr for InterfaceChoice {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let Some((network, bits)) = text.split_once('/') else {
            // What the kernel takes for a name.
            let wrong = text.is_empty() || text.len() > 15 || text.contains([' ', ':']);
            return if wrong {
                Err("neither the name of an interface nor a subnet, 10.1.0.0/16 say".to_owned())
            } else {
                Ok(InterfaceChoice::Name(text.to_owned()))
            };
        };
        let network: IpAddr = network.parse().map_err(|_| format!("{network} is no address"))?;
        let most = if network.is_ipv4() { 32 } else { 128 };
        match bits.parse() {
            Ok(bits) if bits <= most => Ok(InterfaceChoice::Subnet(network, bits)),
            _ => Err(format!("a subnet has 0 to {most} bits, not {bits}")),
        }
    }
}

impl fmt::Display for InterfaceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            InterfaceChoice::Name(name) => f.write_str(name),
            InterfaceChoice::Subnet(network, bits) => write!(f, "{network}/{bits}"),
        }
    }
}

impl InterfaceChoice {
    /// Which of `all` it is. An error says what there is.
    pub fn among<'a>(&self, all: &'a [Interface]) -> Result<&'a Interface, String> {
        let fits = |interface: &&Interface| match self {
            InterfaceChoice::Name(name) => interface.name == *name,
            InterfaceChoice::Subnet(network, bits) => {
                interface.addresses.iter().any(|at| is_within(*at, *network, *bits))
            }
        };
        let found: Vec<_> = all.iter().filter(fits).collect();
        match (&found[..], self) {
            ([one], _) => Ok(one),
            ([], InterfaceChoice::Name(name)) => {
                Err(format!("this machine has no interface {name}; it has {}", list(all)))
            }
            ([], InterfaceChoice::Subnet(..)) => {
                Err(format!("no interface has an address in {self}; there are {}", list(all)))
            }
            (several, _) => {
                let names: Vec<_> = several.iter().map(|one| one.name.as_str()).collect();
                Err(format!("{} have addresses in {self}: name one of them", names.join(" and ")))
            }
        }
    }

    /// The name of the interface, as this machine has it now.
    pub fn name(&self) -> Result<String, String> {
        let all = interfaces().map_err(|error| format!("interfaces cannot be listed: {error}"))?;
        self.among(&all).map(|interface| interface.name.clone())
    }
}

/// Interfaces with their addresses, for people.
fn list(all: &[Interface]) -> String {
    let show = |interface: &Interface| {
        let addresses: Vec<_> = interface.addresses.iter().map(IpAddr::to_string).collect();
        match &addresses[..] {
            [] => format!("{} (no address)", interface.name),
            some => format!("{} ({})", interface.name, some.join(", ")),
        }
    };
    all.iter().map(show).collect::<Vec<_>>().join("; ")
}

fn is_within(at: IpAddr, network: IpAddr, bits: u8) -> bool {
    let same = |one: u128, other: u128, width: u32| {
        // A shift by the whole width is none that the type knows.
        let host = width - u32::from(bits);
        one.checked_shr(host).unwrap_or(0) == other.checked_shr(host).unwrap_or(0)
    };
    match (at, network) {
        (IpAddr::V4(at), IpAddr::V4(network)) => {
            same(u128::from(at.to_bits()), u128::from(network.to_bits()), 32)
        }
        (IpAddr::V6(at), IpAddr::V6(network)) => same(at.to_bits(), network.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Vec<Interface> {
        let interface = |name: &str, addresses: &[&str]| Interface {
            name: name.into(),
            addresses: addresses.iter().map(|at| at.parse().unwrap()).collect(),
        };
        vec![
            interface("lo", &["127.0.0.1", "::1"]),
            interface("eth0", &["10.0.0.1", "fe80::1"]),
            interface("eth1", &["10.1.3.4", "fd00:1::4"]),
            interface("eth2", &["10.1.9.9"]),
            interface("eth3", &[]),
        ]
    }

    fn chosen(text: &str) -> Result<String, String> {
        text.parse::<InterfaceChoice>()?.among(&host()).map(|found| found.name.clone())
    }

    #[test]
    fn an_interface_is_found_by_name_or_by_a_network_it_is_in() {
        for (choice, name) in [
            ("eth1", "eth1"),
            ("10.1.0.0/21", "eth1"),
            ("10.1.9.9/32", "eth2"),
            ("fd00:1::/64", "eth1"),
            ("127.0.0.0/8", "lo"),
        ] {
            assert_eq!(chosen(choice).as_deref(), Ok(name), "{choice}");
            assert_eq!(choice.parse::<InterfaceChoice>().unwrap().to_string(), choice);
        }
    }

    #[test]
    fn what_is_not_there_is_answered_with_what_is() {
        let why = chosen("eth7").unwrap_err();
        assert!(why.contains("no interface eth7") && why.contains("eth1 (10.1.3.4, fd00:1::4)"));
        assert!(why.contains("eth3 (no address)"), "{why}");
        let why = chosen("192.168.0.0/16").unwrap_err();
        assert!(why.contains("192.168.0.0/16") && why.contains("eth0 (10.0.0.1"), "{why}");
        let why = chosen("10.1.0.0/16").unwrap_err();
        assert!(why.contains("eth1 and eth2"), "{why}");
        for nonsense in ["", "eth 0", "10.0.0.0/33", "fd00::/129", "x/8", "a-name-that-is-long"] {
            assert!(chosen(nonsense).is_err(), "{nonsense}");
        }
        assert!(chosen("0.0.0.0/0").is_err() && chosen("::/0").is_err(), "several");
    }

    #[test]
    fn one_is_written_as_one_and_more_as_a_list() {
        let one: AddressList = "10.0.0.1:1".parse().unwrap();
        assert_eq!(serde_json::to_string(&one).unwrap(), "\"10.0.0.1:1\"");
        let two: AddressList = serde_json::from_str(r#"["10.0.0.1:1", "10.1.0.1:1"]"#).unwrap();
        assert_eq!(serde_json::to_string(&two).unwrap(), r#"["10.0.0.1:1","10.1.0.1:1"]"#);
        assert_eq!(
            (two.first(), two.to_string().as_str()),
            (one.first(), "10.0.0.1:1, 10.1.0.1:1")
        );
        let wrong = serde_json::from_str::<AddressList>(r#"["10.0.0.1"]"#).unwrap_err();
        assert!(wrong.to_string().contains("\"10.0.0.1\": invalid socket address"), "{wrong}");
    }
}
