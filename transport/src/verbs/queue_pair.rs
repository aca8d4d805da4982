//! One reliable queue pair: made, connected, posted to, destroyed.

use std::io;
use std::mem::zeroed;
use std::ptr::{NonNull, null_mut};
use std::sync::Arc;

use rdma_sys::*;

use super::completion::Completions;
use super::discover::Place;
use super::layout::HEADER;
use super::offer::Offer;
use super::region::Domain;

/// Writes that may be posted and not known to be done.
pub(super) const SENDS: u32 = 256;
/// Doorbells that may arrive before the poller looks. One more waits at the sender (receiver not ready).
pub(super) const RECEIVES: u32 = 256;
/// Number of all receive requests: they carry nothing, so they need not be told apart.
pub(super) const RECEIVE: u64 = u64::MAX;
/// Inline bytes asked for. Every adapter that writes at all takes the smaller.
const INLINE: [u32; 2] = [256, HEADER as u32];
/// Work requests handed to the adapter in one call.
const CHAIN: usize = 8;

/// What a time-out is made of: 4.096 µs × 2^12 = 17 ms, tried seven times. With a retry count of seven some drivers try
/// for ever. Heartbeats beside tell a dead peer sooner; this bounds how long a broken path stays unnoticed.
const TIMEOUT: u8 = 12;
const RETRIES: u8 = 6;
/// A receiver that is not ready is tried again for ever: a frozen peer is for the failure detector to judge.
const RNR_FOR_EVER: u8 = 7;
/// The receiver asks for a pause of 0.64 ms.
const RNR_PAUSE: u8 = 14;

/// A remote write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Write {
    pub(super) local: u64,
    pub(super) local_key: u32,
    pub(super) len: u32,
    pub(super) remote: u64,
    /// The bytes are copied when it is posted.
    pub(super) inline: bool,
}

/// How the last write of a batch ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ending {
    /// Number of the batch.
    pub(super) id: u64,
    /// Rings: takes a receive request at the peer, and completes it.
    pub(super) doorbell: Option<u32>,
    /// The doorbell wakes a sleeper.
    pub(super) wakes: bool,
    /// Its end is told by a completion here.
    pub(super) signaled: bool,
}

pub(super) struct QueuePair {
    raw: NonNull<ibv_qp>,
    pub(super) inline_max: usize,
    domain: Arc<Domain>,
}

// SAFETY: only reached through the link that owns it; libibverbs ties nothing to a thread.
unsafe impl Send for QueuePair {}

impl QueuePair {
    /// A queue pair that can receive on `place`'s port, not yet connected, with all receive requests posted.
    pub(super) fn new(
        domain: Arc<Domain>,
        completions: &Completions,
        place: &Place,
    ) -> io::Result<QueuePair> {
        let mut error = io::Error::from(io::ErrorKind::Unsupported);
        for inline in INLINE {
            match QueuePair::create(domain.clone(), completions, inline) {
                Ok(pair) => {
                    pair.initialise(place)?;
                    pair.receive(RECEIVES)?;
                    return Ok(pair);
                }
                Err(e) => error = e,
            }
        }
        Err(error)
    }

    fn create(
        domain: Arc<Domain>,
        completions: &Completions,
        inline: u32,
    ) -> io::Result<QueuePair> {
        // SAFETY: all-zero is a valid value (null pointers, zero numbers).
        let mut attributes: ibv_qp_init_attr = unsafe { zeroed() };
        attributes.send_cq = completions.raw();
        attributes.recv_cq = completions.raw();
        attributes.qp_type = ibv_qp_type::IBV_QPT_RC;
        attributes.cap.max_send_wr = SENDS;
        attributes.cap.max_recv_wr = RECEIVES;
        attributes.cap.max_send_sge = 1;
        attributes.cap.max_recv_sge = 1;
        attributes.cap.max_inline_data = inline;
        // SAFETY: live domain, live completion queue, live attributes.
        let raw = unsafe { (domain.device.library.create_qp)(domain.raw(), &mut attributes) };
        let raw = NonNull::new(raw).ok_or_else(io::Error::last_os_error)?;
        let inline_max = attributes.cap.max_inline_data.min(1024) as usize;
        Ok(QueuePair { raw, inline_max, domain })
    }

    pub(super) fn number(&self) -> u32 {
        // SAFETY: live until `drop`.
        unsafe { self.raw.as_ref().qp_num }
    }

    fn modify(&self, attributes: &mut ibv_qp_attr, mask: ibv_qp_attr_mask) -> io::Result<()> {
        let modify = self.domain.device.library.modify_qp;
        // SAFETY: live queue pair and attributes.
        match unsafe { modify(self.raw.as_ptr(), attributes, mask.0 as i32) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn initialise(&self, place: &Place) -> io::Result<()> {
        // SAFETY: all-zero is a valid value of these plain numbers.
        let mut to: ibv_qp_attr = unsafe { zeroed() };
        to.qp_state = ibv_qp_state::IBV_QPS_INIT;
        to.port_num = place.port;
        to.pkey_index = place.partition.0;
        to.qp_access_flags = ibv_access_flags::IBV_ACCESS_REMOTE_WRITE.0;
        let mask = ibv_qp_attr_mask::IBV_QP_STATE
            | ibv_qp_attr_mask::IBV_QP_PKEY_INDEX
            | ibv_qp_attr_mask::IBV_QP_PORT
            | ibv_qp_attr_mask::IBV_QP_ACCESS_FLAGS;
        self.modify(&mut to, mask)
    }

    /// Connects it with the peer's. Both ends take the smaller of the two MTUs that they told each other.
    pub(super) fn connect(&self, place: &Place, own: &Offer, peer: &Offer) -> io::Result<()> {
        // SAFETY: all-zero is a valid value of these plain numbers.
        let mut to: ibv_qp_attr = unsafe { zeroed() };
        to.qp_state = ibv_qp_state::IBV_QPS_RTR;
        to.path_mtu = u32::from(own.mtu.min(peer.mtu).clamp(1, 5));
        to.dest_qp_num = peer.qpn;
        to.rq_psn = peer.psn;
        to.min_rnr_timer = RNR_PAUSE;
        to.ah_attr.dlid = peer.lid;
        to.ah_attr.port_num = place.port;
        to.ah_attr.is_global = 1;
        to.ah_attr.grh.dgid = ibv_gid { raw: peer.gid };
        to.ah_attr.grh.sgid_index = place.gid_index;
        to.ah_attr.grh.hop_limit = 64;
        to.ah_attr.grh.traffic_class = place.marks.traffic_class;
        to.ah_attr.sl = place.marks.service_level;
        let mask = ibv_qp_attr_mask::IBV_QP_STATE
            | ibv_qp_attr_mask::IBV_QP_AV
            | ibv_qp_attr_mask::IBV_QP_PATH_MTU
            | ibv_qp_attr_mask::IBV_QP_DEST_QPN
            | ibv_qp_attr_mask::IBV_QP_RQ_PSN
            | ibv_qp_attr_mask::IBV_QP_MAX_DEST_RD_ATOMIC
            | ibv_qp_attr_mask::IBV_QP_MIN_RNR_TIMER;
        self.modify(&mut to, mask)?;
        // SAFETY: as above.
        let mut to: ibv_qp_attr = unsafe { zeroed() };
        to.qp_state = ibv_qp_state::IBV_QPS_RTS;
        to.sq_psn = own.psn;
        to.timeout = TIMEOUT;
        to.retry_cnt = RETRIES;
        to.rnr_retry = RNR_FOR_EVER;
        let mask = ibv_qp_attr_mask::IBV_QP_STATE
            | ibv_qp_attr_mask::IBV_QP_SQ_PSN
            | ibv_qp_attr_mask::IBV_QP_TIMEOUT
            | ibv_qp_attr_mask::IBV_QP_RETRY_CNT
            | ibv_qp_attr_mask::IBV_QP_RNR_RETRY
            | ibv_qp_attr_mask::IBV_QP_MAX_QP_RD_ATOMIC;
        self.modify(&mut to, mask)
    }

    /// Posts `count` receive requests: each lets the peer ring once more.
    pub(super) fn receive(&self, mut count: u32) -> io::Result<()> {
        while count > 0 {
            let len = (count as usize).min(CHAIN);
            count -= len as u32;
            let empty =
                ibv_recv_wr { wr_id: RECEIVE, next: null_mut(), sg_list: null_mut(), num_sge: 0 };
            let mut chain = [empty; CHAIN];
            let first = chain.as_mut_ptr();
            for i in 1..len {
                // SAFETY: both in the array; `first` is the one pointer that it is reached by.
                unsafe { (*first.add(i - 1)).next = first.add(i) };
            }
            let mut refused = null_mut();
            // SAFETY: a live queue pair, and a chain that lives through the call.
            match unsafe { ibv_post_recv(self.raw.as_ptr(), first, &mut refused) } {
                0 => {}
                error => return Err(io::Error::from_raw_os_error(error)),
            }
        }
        Ok(())
    }

    /// Posts writes, in order. The last one is `ending`'s.
    ///
    /// # Safety
    /// Each range is memory of the region that its key names (or, inline, readable memory); it is not written until
    /// the batch is known to be done, or the queue pair is destroyed.
    pub(super) unsafe fn post(
        &mut self,
        writes: &[Write],
        remote_key: u32,
        ending: Ending,
    ) -> io::Result<()> {
        // Most batches are of one write: no more is filled in than it takes.
        if let [write] = writes {
            // SAFETY: handed on to the caller.
            return unsafe {
                self.chain::<1>(std::slice::from_ref(write), remote_key, ending, true)
            };
        }
        let pieces = writes.len().div_ceil(CHAIN);
        for (number, piece) in writes.chunks(CHAIN).enumerate() {
            // SAFETY: handed on to the caller.
            unsafe { self.chain::<CHAIN>(piece, remote_key, ending, number + 1 == pieces)? };
        }
        Ok(())
    }

    /// Posts at most `N` writes, `ends` the batch.
    ///
    /// # Safety
    /// As of [`QueuePair::post`].
    unsafe fn chain<const N: usize>(
        &mut self,
        writes: &[Write],
        remote_key: u32,
        ending: Ending,
        ends: bool,
    ) -> io::Result<()> {
        // SAFETY: all-zero is a valid value (null pointers, zero numbers).
        let (mut chain, mut ranges): ([ibv_send_wr; N], [ibv_sge; N]) =
            unsafe { (zeroed(), zeroed()) };
        let writes = &writes[..writes.len().min(N)];
        let (first, range) = (chain.as_mut_ptr(), ranges.as_mut_ptr());
        for (i, write) in writes.iter().enumerate() {
            let last = i + 1 == writes.len();
            let mut flags = if write.inline { ibv_send_flags::IBV_SEND_INLINE.0 } else { 0 };
            // SAFETY: `i` is in both arrays, which are reached by these pointers alone.
            let (request, range) = unsafe { (&mut *first.add(i), range.add(i)) };
            // SAFETY: in the array.
            unsafe {
                *range = ibv_sge { addr: write.local, length: write.len, lkey: write.local_key };
            }
            request.wr_id = ending.id;
            request.sg_list = range;
            request.num_sge = 1;
            request.opcode = ibv_wr_opcode::IBV_WR_RDMA_WRITE;
            request.wr.rdma = rdma_t { remote_addr: write.remote, rkey: remote_key };
            if last && ends {
                if let Some(doorbell) = ending.doorbell {
                    request.opcode = ibv_wr_opcode::IBV_WR_RDMA_WRITE_WITH_IMM;
                    request.imm_data_invalidated_rkey_union =
                        imm_data_invalidated_rkey_union_t { imm_data: doorbell.to_be() };
                }
                flags |= if ending.wakes { ibv_send_flags::IBV_SEND_SOLICITED.0 } else { 0 };
                flags |= if ending.signaled { ibv_send_flags::IBV_SEND_SIGNALED.0 } else { 0 };
            }
            request.send_flags = flags;
            // SAFETY: in the array.
            request.next = if last { null_mut() } else { unsafe { first.add(i + 1) } };
        }
        let mut refused = null_mut();
        // SAFETY: a live queue pair; chain and ranges live through the call, after which the driver does not need
        // them; what the ranges name is the caller's promise.
        match unsafe { ibv_post_send(self.raw.as_ptr(), first, &mut refused) } {
            0 => Ok(()),
            error => Err(io::Error::from_raw_os_error(error)),
        }
    }

    /// Ends all traffic: what is posted is flushed with an error.
    pub(super) fn stop(&self) {
        // SAFETY: all-zero is a valid value of these plain numbers.
        let mut to: ibv_qp_attr = unsafe { zeroed() };
        to.qp_state = ibv_qp_state::IBV_QPS_ERR;
        self.modify(&mut to, ibv_qp_attr_mask::IBV_QP_STATE).ok();
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        if !self.domain.device.is_here() {
            return;
        }
        self.stop();
        // SAFETY: made here, destroyed once. From here on the adapter touches nothing for it.
        unsafe { (self.domain.device.library.destroy_qp)(self.raw.as_ptr()) };
    }
}
