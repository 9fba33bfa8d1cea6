package table

// Zero reads as zeroes, and drops writes and discards.
type Zero struct{}

var _ Target = (*Zero)(nil)

func parseZero(w *words) (Target, error) { return &Zero{}, w.exactly(0) }

// Type implements Target.
func (*Zero) Type() string { return "zero" }

// Areas implements Target.
func (*Zero) Areas(uint64) []Area { return nil }

func (*Zero) arguments(b []byte) []byte { return b }

func (*Zero) rename(func(string) string) {}

func (*Zero) check(uint64) error { return nil }

func (*Zero) block() uint32 { return sectorSize }
