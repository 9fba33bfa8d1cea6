package ring

import "unsafe"

// Probe holds the operations that the kernel supports.
type Probe struct {
	header ioUringProbe
	ops    [256]ioUringProbeOp
}

// NewProbe reads the supported operations with IORING_REGISTER_PROBE (Linux
// 5.6).
func (r *Ring) NewProbe() (*Probe, error) {
	p := new(Probe)
	if err := r.register("probe io_uring", IORING_REGISTER_PROBE, unsafe.Pointer(p), uint32(len(p.ops))); err != nil {
		return nil, err
	}
	return p, nil
}

// Supports reports whether the kernel supports an operation, IORING_OP_….
func (p *Probe) Supports(op uint8) bool {
	return p.ops[op].Flags&IO_URING_OP_SUPPORTED != 0
}
