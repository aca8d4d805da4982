//! RDMA: whether there is an adapter, and a library to speak to it with.
//!
//! What each adapter, port and address is worth is for the transport's own discovery to say; its report becomes checks
//! of this area, beside the two here.

use super::{Check, Host, Judgement, fine, not_applicable, system, warning};

const AREA: &str = "rdma";

/// What was seen.
pub(super) struct Facts {
    /// Names in /sys/class/infiniband.
    adapters: Vec<String>,
    /// Loading libibverbs: what the loader said if it could not.
    library: Result<(), String>,
}

impl Facts {
    pub(super) fn look(host: &Host) -> Facts {
        Facts {
            adapters: host.names("sys/class/infiniband"),
            library: system::loadable(c"libibverbs.so.1"),
        }
    }

    pub(super) fn judge(&self) -> Vec<Check> {
        let why_adapters =
            "peers with adapters on both sides could be linked by RDMA; all others use UDP";
        let why_library =
            "adapters are spoken to through libibverbs, which is looked for when the daemon starts";
        vec![
            Check::new(AREA, "adapters", why_adapters, adapters(&self.adapters)),
            Check::new(AREA, "libibverbs", why_library, library(&self.adapters, &self.library)),
        ]
    }
}

fn adapters(names: &[String]) -> Judgement {
    if names.is_empty() {
        not_applicable("none (/sys/class/infiniband is empty or not there)")
    } else {
        fine(names.join(", "))
    }
}

fn library(adapters: &[String], tried: &Result<(), String>) -> Judgement {
    match tried {
        Ok(()) => fine("can be loaded"),
        Err(said) if adapters.is_empty() => not_applicable(format!("{said}; no adapter needs it")),
        Err(said) => {
            warning(said.clone(), "apt install libibverbs1 ibverbs-providers (or rdma-core)")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict::*;
    use super::super::host::plant;
    use super::*;

    #[test]
    fn a_missing_library_matters_where_there_is_an_adapter() {
        let missing = Err("libibverbs.so.1: cannot open shared object file".to_owned());
        let adapter = ["mlx5_0".to_owned()];
        assert_eq!(
            (library(&[], &missing).0, library(&adapter, &missing).0),
            (NotApplicable, Warning)
        );
        assert_eq!(library(&adapter, &std::result::Result::Ok(())).0, Ok);
        assert_eq!((adapters(&[]).0, adapters(&adapter).0), (NotApplicable, Ok));
        let (_dir, host) = plant(&[("sys/class/infiniband/rxe0/ports/1/state", "4: ACTIVE")]);
        assert_eq!(Facts::look(&host).adapters, ["rxe0"]);
    }
}
