package luks

import (
	"fmt"
	"math/bits"
)

// Default limits for the cost of unlocking. cryptsetup measures the machine on
// which it creates a keyslot, and chooses a cost of 2 seconds there by default.
// Such a volume must also open on a slower machine.
const (
	// maxArgon2Memory is in bytes. It is cryptsetup's own maximum; cryptsetup's
	// default is at most 1 GiB.
	maxArgon2Memory = 4 << 30
	// maxArgon2Cpus is cryptsetup's maximum number of lanes.
	maxArgon2Cpus = 4
	// maxArgon2Work is memory × passes, in bytes. In two seconds, the fastest
	// machines do about 10 passes over 1 GiB. This limit is 25 times that, and
	// takes minutes: 1 GiB takes between 0.8 seconds on two cores and 2.5
	// seconds on one core.
	maxArgon2Work = 256 << 30
	// maxPBKDF2Work is iterations × blocks of output. In two seconds, the
	// fastest machines do about 20 million iterations. This limit is 50 times
	// that. It takes 5 minutes with sha256 at 3.5 million a second, and about
	// 20 minutes with ripemd160.
	maxPBKDF2Work = 1 << 30
)

// Limits limit the total cost of Unlock over all the keyslots that it tries.
// Unlock skips a keyslot that exceeds the remaining cost. A zero field means
// its default, which is far above every volume made with cryptsetup's defaults.
type Limits struct {
	// Memory is the maximum memory of one argon2 derivation in bytes, for
	// example the machine's free memory. Default and maximum: 4 GiB.
	Memory uint64
	// Argon2Work limits memory × passes, in bytes. Default: 256 GiB.
	Argon2Work uint64
	// PBKDF2Work limits iterations × blocks of output. Default: 2^30.
	PBKDF2Work uint64
}

// filled returns the limits with defaults for zero fields.
func (l Limits) filled() Limits {
	if l.Memory == 0 || l.Memory > maxArgon2Memory {
		l.Memory = maxArgon2Memory
	}
	if l.Argon2Work == 0 {
		l.Argon2Work = maxArgon2Work
	}
	if l.PBKDF2Work == 0 {
		l.PBKDF2Work = maxPBKDF2Work
	}
	return l
}

// spend subtracts the product of factors from left.
func spend(left *uint64, what string, factors ...uint64) error {
	work := uint64(1)
	for _, f := range factors {
		high, low := bits.Mul64(work, f)
		if high != 0 || low > *left {
			return fmt.Errorf("%s is more work than allowed: %w", what, ErrLimit)
		}
		work = low
	}
	*left -= work
	return nil
}
