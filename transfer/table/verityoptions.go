package table

import (
	"fmt"
	"math"
	"strings"
)

// VerityOptions say how the target verity checks blocks.
type VerityOptions uint8

// Options of dm-verity, in the order in which it prints them.
const (
	// IgnoreCorruption serves wrong blocks as they are. They are counted.
	IgnoreCorruption VerityOptions = 1 << iota
	// IgnoreZeroBlocks returns zeroes for a data block with the digest of zeroes, whatever is
	// in the block.
	IgnoreZeroBlocks
	// CheckAtMostOnce trusts a data block after it has been right once.
	CheckAtMostOnce
	// TryVerifyInTasklet has no effect, but is printed.
	TryVerifyInTasklet
)

var verityOptions = []string{"ignore_corruption", "ignore_zero_blocks", "check_at_most_once", "try_verify_in_tasklet"}

// otherVerityOptions are options of dm-verity that are refused by name.
var otherVerityOptions = map[string]bool{
	"restart_on_corruption": true, "panic_on_corruption": true, "restart_on_error": true, "panic_on_error": true,
	"use_fec_from_device": true, "fec_roots": true, "fec_blocks": true, "fec_start": true, "root_hash_sig_key_desc": true,
}

// Has reports whether an option is set.
func (o VerityOptions) Has(option VerityOptions) bool { return o&option != 0 }

// parse reads the number of options and the options. Capital letters count as small ones, as
// in the kernel.
func (o *VerityOptions) parse(w *words) error {
	count, err := w.number("number of options", 32)
	if err != nil {
		return err
	}
	if err := w.exactly(int(min(count, math.MaxInt32))); err != nil {
		return fmt.Errorf("options: %w", err)
	}
	for len(w.rest) > 0 {
		s := w.next()
		if err := o.add(strings.ToLower(s)); err != nil {
			return badArgument("option", s, err)
		}
	}
	return nil
}

// add sets an option. The kernel refuses only ignore_corruption if it is there twice.
func (o *VerityOptions) add(name string) error {
	for i, known := range verityOptions {
		if name != known {
			continue
		}
		if o.Has(1 << i) {
			return fmt.Errorf("given twice: %w", ErrInvalid)
		}
		*o |= 1 << i
		return nil
	}
	if otherVerityOptions[name] {
		return ErrUnsupported
	}
	return fmt.Errorf("unknown: %w", ErrInvalid)
}

// append appends the number of options and the options to the arguments.
func (o VerityOptions) append(b []byte) []byte {
	var names []string
	for i, name := range verityOptions {
		if o.Has(1 << i) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return b
	}
	return fmt.Appendf(b, " %d %s", len(names), strings.Join(names, " "))
}
