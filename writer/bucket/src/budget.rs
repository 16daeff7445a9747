//! A share of requests as tokens: each request pays in a part of a token, each extra request takes a
//! whole one. So extra load is bounded by a share of the load, whatever happens.

use parking_lot::Mutex;

/// Thousandths of a token.
const TOKEN: u64 = 1000;

/// The tokens.
#[derive(Debug)]
pub(crate) struct Budget {
    tokens: Mutex<u64>,
    paid_in: u64,
    most: u64,
}

impl Budget {
    /// `percent` of requests, and at most `burst` together after a quiet time. Begins full.
    pub(crate) fn new(percent: u32, burst: u32) -> Self {
        let most = u64::from(burst) * TOKEN;
        let paid_in = u64::from(percent) * TOKEN / 100;
        let tokens = if percent == 0 { 0 } else { most };
        Self { tokens: Mutex::new(tokens), paid_in, most }
    }

    /// A request is made.
    pub(crate) fn pay_in(&self) {
        let mut tokens = self.tokens.lock();
        *tokens = (*tokens + self.paid_in).min(self.most);
    }

    /// Whether an extra one may be.
    pub(crate) fn take(&self) -> bool {
        let mut tokens = self.tokens.lock();
        let left = tokens.checked_sub(TOKEN);
        *tokens = left.unwrap_or(*tokens);
        left.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extra_requests_are_a_share_of_requests() {
        let budget = Budget::new(20, 10);
        let burst = (0..100).filter(|_| budget.take()).count();
        assert_eq!(burst, 10);
        let mut extra = 0;
        for _ in 0..1000 {
            budget.pay_in();
            extra += usize::from(budget.take());
        }
        assert_eq!(extra, 200);
        (0..1_000_000).for_each(|_| budget.pay_in());
        assert_eq!((0..100).filter(|_| budget.take()).count(), 10, "it saves up no more than that");
    }

    #[test]
    fn none_are_allowed_by_zero_per_cent() {
        let budget = Budget::new(0, 10);
        budget.pay_in();
        assert!(!budget.take());
    }
}
