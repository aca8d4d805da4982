//! The bank by itself, without a platform.

use std::collections::BTreeMap;

use proptest::prelude::*;
use quintet_component::Code;

use super::proto::Bank as _;
use super::*;

fn context(position: u64) -> Context {
    Context::new(position, 0, 0)
}

fn transfer(
    bank: &mut Bank,
    from: u64,
    to: u64,
    amount: u64,
    reference: u64,
) -> Result<Receipt, Status> {
    bank.transfer(&mut context(1), TransferRequest { from, to, amount, reference })
}

fn saved(bank: &Bank) -> Vec<u8> {
    let mut bytes = Vec::new();
    bank.save(&mut bytes).unwrap();
    bytes
}

fn loaded(bytes: &[u8]) -> io::Result<Bank> {
    let mut bank = Bank::open(1, 1);
    bank.load(&mut &*bytes)?;
    Ok(bank)
}

/// The whole ledger, page by page.
fn ledger(bank: &Bank, limit: u32) -> Vec<(u64, u32)> {
    let (mut entries, mut after) = (Vec::new(), 0);
    loop {
        let page = bank.ledger(&context(1), LedgerRequest { after, limit }).unwrap();
        entries.extend(page.entries.iter().map(|entry| (entry.reference, entry.times)));
        match page.entries.last() {
            Some(last) if page.more => after = last.reference,
            _ => return entries,
        }
    }
}

#[test]
fn a_new_bank_has_a_thousand_accounts_with_equal_money() {
    let bank = Bank::default();
    for account in [0, 999] {
        assert_eq!(bank.balance(&context(1), Account { account }).unwrap().amount, OPENING_BALANCE);
    }
    assert_eq!(
        bank.balance(&context(1), Account { account: 1000 }).unwrap_err().code(),
        Code::NotFound
    );
    assert_eq!(
        bank.total(&context(1), TotalRequest {}).unwrap().amount,
        ACCOUNTS * OPENING_BALANCE
    );
}

#[test]
fn a_transfer_says_where_it_stands_in_the_order() {
    let mut bank = Bank::open(2, 10);
    let request = TransferRequest { from: 0, to: 1, amount: 4, reference: 9 };
    let receipt = bank.transfer(&mut context(77), request).unwrap();
    assert_eq!(receipt, Receipt { reference: 9, balance: 6, position: 77 });
}

#[test]
fn what_is_refused_leaves_no_trace() {
    let mut bank = Bank::open(2, 10);
    let before = bank.clone();
    for (from, to, amount, code) in [
        (0, 1, 0, Code::InvalidArgument),
        (1, 1, 5, Code::InvalidArgument),
        (7, 1, 5, Code::NotFound),
        (1, 7, 5, Code::NotFound),
        (0, 1, 11, Code::FailedPrecondition),
        (0, 1, u64::MAX, Code::FailedPrecondition),
    ] {
        assert_eq!(transfer(&mut bank, from, to, amount, 1).unwrap_err().code(), code);
        assert_eq!(bank, before);
    }
}

#[test]
fn the_bank_does_not_compare_references_but_counts_them() {
    let mut bank = Bank::open(2, 10);
    for _ in 0..3 {
        transfer(&mut bank, 0, 1, 1, 42).unwrap();
    }
    transfer(&mut bank, 0, 1, 1, 7).unwrap();
    transfer(&mut bank, 0, 1, 1, 0).unwrap();
    assert_eq!(ledger(&bank, 0), [(7, 1), (42, 3)]);
    let report = bank.audit(&context(1), AuditRequest {}).unwrap();
    assert_eq!(report, AuditReport { accounts: 2, transfers: 5, references: 2, repeated: 1 });
}

#[test]
fn a_page_ends_where_it_is_asked_to_and_no_later_than_its_limit() {
    let mut bank = Bank::open(2, 1_000_000);
    for reference in 1..=PAGE_MAX as u64 + 1 {
        transfer(&mut bank, 0, 1, 1, reference).unwrap();
    }
    for limit in [0, u32::MAX, PAGE_MAX as u32] {
        let page = bank.ledger(&context(1), LedgerRequest { after: 0, limit }).unwrap();
        assert_eq!((page.entries.len(), page.more), (PAGE_MAX, true));
    }
    let rest =
        bank.ledger(&context(1), LedgerRequest { after: PAGE_MAX as u64, limit: 5 }).unwrap();
    assert_eq!((rest.entries.len(), rest.more), (1, false));
    let behind = bank.ledger(&context(1), LedgerRequest { after: u64::MAX, limit: 5 }).unwrap();
    assert_eq!((behind.entries.len(), behind.more), (0, false));
}

#[test]
fn a_saved_bank_that_is_not_one_is_refused_with_the_reason() {
    let good = saved(&Bank::open(3, 5));
    let wrong = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        loaded(&bytes).unwrap_err().to_string()
    };
    assert!(wrong(&|bytes| bytes[0] = b'X').contains("not a saved bank"));
    assert!(wrong(&|bytes| bytes[4] = 2).contains("format 2"));
    assert!(wrong(&|bytes| bytes.push(0)).contains("behind its end"));
    assert!(wrong(&|bytes| bytes[16..24].fill(0xff)).contains("entries where"));
    // The second account is made the first again.
    assert!(wrong(&|bytes| bytes[40] = 0).contains("out of order"));
    assert!(wrong(&|bytes| bytes[32..40].fill(0xff)).contains("more money"));
    for len in 0..good.len() {
        assert!(loaded(&good[..len]).is_err(), "cut at {len}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any transfers against a model: money is neither made nor lost, the ledger tells exactly what
    /// was applied, and the state survives being saved.
    #[test]
    fn the_books_balance(
        transfers in prop::collection::vec((0..8u64, 0..8u64, 0..60u64, 0..20u64), 0..200),
        limit in 1..9u32,
    ) {
        let mut bank = Bank::open(7, 100);
        let mut model: BTreeMap<u64, u32> = BTreeMap::new();
        let mut applied = 0;
        for (from, to, amount, reference) in transfers {
            let before = bank.clone();
            match transfer(&mut bank, from, to, amount, reference) {
                Ok(_) => {
                    applied += 1;
                    if reference != 0 {
                        *model.entry(reference).or_default() += 1;
                    }
                }
                Err(_) => prop_assert_eq!(&bank, &before),
            }
            prop_assert_eq!(bank.total(&context(1), TotalRequest {}).unwrap().amount, 700);
        }
        prop_assert_eq!(ledger(&bank, limit), model.into_iter().collect::<Vec<_>>());
        prop_assert_eq!(bank.audit(&context(1), AuditRequest {}).unwrap().transfers, applied);

        let bytes = saved(&bank);
        let again = loaded(&bytes).unwrap();
        prop_assert_eq!(&again, &bank);
        prop_assert_eq!(saved(&again), bytes);
    }

    #[test]
    fn no_saved_bytes_are_too_strange(bytes in any::<Vec<u8>>(), cut in any::<prop::sample::Index>()) {
        let _ = loaded(&bytes);
        let mut good = saved(&Bank::open(3, 5));
        let at = cut.index(good.len());
        good[at] ^= bytes.first().copied().unwrap_or(1) | 1;
        // Whatever is accepted is a bank: it can be saved as it was read.
        if let Ok(bank) = loaded(&good) {
            prop_assert_eq!(saved(&bank), good);
        }
    }
}
