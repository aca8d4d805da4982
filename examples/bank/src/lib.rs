//! The bank: a complete component with replicated state.
//!
//! A thousand accounts are opened with equal money; transfers move it, and the sum never changes.
//! The bank does nothing to be fault tolerant but be deterministic: ordered maps, no clock, no
//! randomness. That each transfer is applied once, on every replica, through crashes and retries,
//! is the platform's work, asked for in `bank.proto`. The bank only writes down how often each
//! transfer came, so that a client can check.

mod saved;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::ops::Bound;

use quintet_component::{Context, State, Status};

/// Messages and service of `proto/bank.proto`.
pub mod proto {
    quintet_component::include_proto!("bank");
}

use proto::{
    Account, Amount, AuditReport, AuditRequest, Entry, LedgerPage, LedgerRequest, Receipt,
    TotalRequest, TransferRequest,
};

/// Accounts of a new bank, numbered from 0.
pub const ACCOUNTS: u64 = 1_000;
/// What is in each account of a new bank.
pub const OPENING_BALANCE: u64 = 10_000;
/// Most different references that the ledger keeps; with it full, transfers with a new reference
/// are refused.
pub const LEDGER_MAX: usize = 4_000_000;
/// Most entries in a page of the ledger.
pub const PAGE_MAX: usize = 10_000;

/// The factory of [`Bank`]; its instances begin with [`ACCOUNTS`] accounts of [`OPENING_BALANCE`].
pub type BankFactory = proto::BankFactory<Bank>;

quintet_component::export!(BankFactory);

/// The state of a bank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bank {
    /// Account number → what is in it.
    accounts: BTreeMap<u64, u64>,
    /// Reference → how often a transfer with it was applied.
    ledger: BTreeMap<u64, u32>,
    /// Transfers applied.
    transfers: u64,
}

impl Default for Bank {
    fn default() -> Bank {
        Bank::open(ACCOUNTS, OPENING_BALANCE)
    }
}

impl Bank {
    /// A bank with so many accounts, from 0, each with `balance`. Their sum must fit in 64 bits.
    pub fn open(accounts: u64, balance: u64) -> Bank {
        assert!(accounts.checked_mul(balance).is_some(), "more money than 64 bits count");
        Bank {
            accounts: (0..accounts).map(|account| (account, balance)).collect(),
            ledger: BTreeMap::new(),
            transfers: 0,
        }
    }

    fn balance_of(&self, account: u64) -> Result<u64, Status> {
        self.accounts
            .get(&account)
            .copied()
            .ok_or_else(|| Status::not_found(format!("there is no account {account}")))
    }
}

impl proto::Bank for Bank {
    fn transfer(
        &mut self,
        context: &mut Context,
        request: TransferRequest,
    ) -> Result<Receipt, Status> {
        let TransferRequest { from, to, amount, reference } = request;
        // Everything is checked before anything is changed: a refused transfer leaves no trace.
        if amount == 0 {
            return Err(Status::invalid_argument("the amount is 0: there is nothing to move"));
        }
        if from == to {
            return Err(Status::invalid_argument(format!("account {from} is on both sides")));
        }
        let source = self.balance_of(from)?;
        let target = self.balance_of(to)?;
        let left = source.checked_sub(amount).ok_or_else(|| {
            Status::failed_precondition(format!(
                "account {from} holds {source}, less than {amount}"
            ))
        })?;
        if reference != 0
            && self.ledger.len() >= LEDGER_MAX
            && !self.ledger.contains_key(&reference)
        {
            return Err(Status::resource_exhausted(format!(
                "the ledger holds {LEDGER_MAX} references and takes no more"
            )));
        }

        self.accounts.insert(from, left);
        // Cannot overflow: the sum of all accounts fits, and it does not change.
        self.accounts.insert(to, target + amount);
        self.transfers += 1;
        if reference != 0 {
            let times = self.ledger.entry(reference).or_insert(0);
            *times = times.saturating_add(1);
        }
        Ok(Receipt { reference, balance: left, position: context.position() })
    }

    fn balance(&self, _: &Context, request: Account) -> Result<Amount, Status> {
        self.balance_of(request.account).map(|amount| Amount { amount })
    }

    fn total(&self, _: &Context, _: TotalRequest) -> Result<Amount, Status> {
        Ok(Amount { amount: self.accounts.values().sum() })
    }

    fn ledger(&self, _: &Context, request: LedgerRequest) -> Result<LedgerPage, Status> {
        let limit = match request.limit as usize {
            0 => PAGE_MAX,
            limit => limit.min(PAGE_MAX),
        };
        let mut behind = self.ledger.range((Bound::Excluded(request.after), Bound::Unbounded));
        let entries = behind
            .by_ref()
            .take(limit)
            .map(|(&reference, &times)| Entry { reference, times })
            .collect();
        Ok(LedgerPage { entries, more: behind.next().is_some() })
    }

    fn audit(&self, _: &Context, _: AuditRequest) -> Result<AuditReport, Status> {
        Ok(AuditReport {
            accounts: self.accounts.len() as u64,
            transfers: self.transfers,
            references: self.ledger.len() as u64,
            repeated: self.ledger.values().filter(|&&times| times > 1).count() as u64,
        })
    }
}

impl State for Bank {
    fn save(&self, out: &mut dyn Write) -> io::Result<()> {
        saved::write(self, out)
    }

    fn load(&mut self, from: &mut dyn Read) -> io::Result<()> {
        *self = saved::read(from)?;
        Ok(())
    }
}
