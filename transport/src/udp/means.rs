//! Means: by which calls packets leave and come, why those, and what is kept away. Chosen once, before the first packet; a device that
//! cannot what the kernel can is met later, and means the next best from then on.
//!
//! | sending | datagrams a call | where not |
//! |---|---|---|
//! | cut by the kernel (UDP_SEGMENT) | 60, crossing the stack once | kernels before 4.18, devices without checksum offload (EIO) |
//! | sendmmsg | 60, crossing it one by one | seccomp rules that forbid it |
//! | send | 1 | |

use std::fmt::Write as _;
use std::io;

use super::filter::Filter;
use super::socket::{BATCH, SEGMENTS_MAX, UdpCalls};

/// By which calls a node's packets pass the kernel and why, in words.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UdpStatus {
    /// How they leave.
    pub sending: String,
    /// How they come.
    pub receiving: String,
    /// What the kernel keeps away.
    pub filter: String,
}

/// How the datagrams of one batch leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sending {
    Cut,
    Many,
    Alone,
}

/// The choice.
#[derive(Debug)]
pub(super) struct Means {
    pub(super) sending: Sending,
    /// Whether one call may take many messages.
    pub(super) takes_many: bool,
    /// Whether the kernel shall join datagrams.
    pub(super) joins: bool,
    sends_many: io::Result<()>,
    pub(super) told: UdpStatus,
}

impl Means {
    /// The best of what the kernel has; without cutting and joining unless it is `allowed`.
    pub(super) fn choose(calls: UdpCalls, allowed: bool) -> Means {
        let forbidden = || Err(io::Error::other("switched off by the configuration"));
        let segmentation = if allowed { calls.segmentation } else { forbidden() };
        let joining = if allowed { calls.joining } else { forbidden() };
        let mut means = Means {
            sending: Sending::Cut,
            takes_many: calls.recvmmsg.is_ok(),
            joins: joining.is_ok(),
            sends_many: calls.sendmmsg,
            told: UdpStatus {
                sending: format!("cut by the kernel, up to {SEGMENTS_MAX} datagrams a call"),
                ..UdpStatus::default()
            },
        };
        if let Err(error) = segmentation {
            means.cannot_cut(&error);
        }
        let mut told = match calls.recvmmsg {
            Ok(()) => format!("up to {BATCH} messages a call"),
            Err(error) => format!("one message a call: recvmmsg is refused ({error})"),
        };
        _ = match joining {
            Ok(()) => write!(told, ", of datagrams that the kernel has joined"),
            Err(error) => write!(told, ", of one datagram each: UDP_GRO is refused ({error})"),
        };
        means.told.receiving = told;
        means
    }

    /// The kernel, or a device, does not cut.
    pub(super) fn cannot_cut(&mut self, error: &io::Error) {
        let why = format!("UDP_SEGMENT is refused ({error})");
        match &self.sends_many {
            Ok(()) => {
                self.sending = Sending::Many;
                self.told.sending =
                    format!("sendmmsg, up to {SEGMENTS_MAX} datagrams a call: {why}");
            }
            Err(error) => {
                let why = format!("{why}, and so is sendmmsg ({error})");
                self.alone(&why);
            }
        }
    }

    /// Neither does it take many at once.
    pub(super) fn cannot_send_many(&mut self, error: &io::Error) {
        self.alone(&format!("sendmmsg is refused ({error})"));
    }

    fn alone(&mut self, why: &str) {
        self.sending = Sending::Alone;
        self.told.sending = format!("one datagram a call: {why}");
    }

    /// What the sockets filter from now on.
    pub(super) fn filters(&mut self, filter: Option<&Filter>) {
        let told = &mut self.told.filter;
        told.clear();
        _ = match filter {
            None => write!(told, "off while a peer is silent"),
            Some(Filter { one_in: 1, .. }) => write!(told, "on"),
            Some(Filter { one_in, .. }) => {
                write!(
                    told,
                    "on, and lets one in {one_in} first words of strangers through: there is a flood of them"
                )
            }
        };
    }

    /// Nothing is filtered, ever.
    pub(super) fn cannot_filter(&mut self, error: &io::Error) {
        self.told.filter = format!("off: the kernel refuses it ({error})");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn calls(refused: [bool; 4]) -> UdpCalls {
        let said = |at: usize| match refused[at] {
            false => Ok(()),
            true => Err(io::Error::from_raw_os_error(libc::EPERM)),
        };
        UdpCalls {
            segmentation: said(0),
            joining: said(1),
            sendmmsg: said(2),
            recvmmsg: said(3),
            filter: Ok(()),
        }
    }

    #[test]
    fn the_best_is_chosen_and_what_is_refused_is_told() {
        use Sending::*;
        for (segmentation, sendmmsg, sending, says) in [
            (false, false, Cut, "cut by the kernel"),
            (false, true, Cut, "cut by the kernel"),
            (true, false, Many, "UDP_SEGMENT is refused (Operation not permitted"),
            (true, true, Alone, "and so is sendmmsg"),
        ] {
            let means = Means::choose(calls([segmentation, false, sendmmsg, false]), true);
            assert_eq!(means.sending, sending);
            assert!(means.told.sending.contains(says), "{:?}", means.told);
        }
        let means = Means::choose(calls([false, true, false, true]), true);
        assert_eq!((means.joins, means.takes_many), (false, false));
        assert!(means.told.receiving.contains("UDP_GRO is refused"), "{:?}", means.told);
        assert!(means.told.receiving.contains("recvmmsg is refused"), "{:?}", means.told);
    }

    #[test]
    fn a_configuration_can_do_without() {
        let mut means = Means::choose(calls([false; 4]), false);
        assert_eq!((means.sending, means.joins), (Sending::Many, false));
        assert!(means.told.sending.contains("switched off by the configuration"));
        assert!(means.told.receiving.contains("switched off by the configuration"));
        means.cannot_send_many(&io::Error::from_raw_os_error(libc::ENOSYS));
        assert_eq!(means.sending, Sending::Alone);
    }
}
