package ring

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// Restrictions are passed on whole. Without a flag there is still an element for flags, so that the kernel restricts
// entries at all.
func TestRestrictionsAsList(t *testing.T) {
	r := Restrictions{Ops: []uint8{IORING_OP_READ, IORING_OP_WRITE}, Flags: IOSQE_ASYNC, Registers: []uint8{IORING_REGISTER_FILES}}
	for _, tt := range []struct {
		r    Restrictions
		want []ioUringRestriction
	}{
		{r, []ioUringRestriction{
			{Opcode: IORING_RESTRICTION_SQE_FLAGS_ALLOWED, RegisterOp: IOSQE_ASYNC},
			{Opcode: IORING_RESTRICTION_SQE_OP, RegisterOp: IORING_OP_READ},
			{Opcode: IORING_RESTRICTION_SQE_OP, RegisterOp: IORING_OP_WRITE},
			{Opcode: IORING_RESTRICTION_REGISTER_OP, RegisterOp: IORING_REGISTER_FILES},
		}},
		{Restrictions{}, []ioUringRestriction{{Opcode: IORING_RESTRICTION_SQE_FLAGS_ALLOWED}}},
	} {
		if got := tt.r.list(); !slices.Equal(got, tt.want) {
			t.Errorf("list %v, want %v", got, tt.want)
		}
	}
}

// Each kernel says whether it has restrictions of tasks, also to a process without privileges.
func TestHasTaskRestrictions(t *testing.T) {
	if err := HasTaskRestrictions(); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		t.Error(err)
	}
}

// A ring with restrictions does what they have, and nothing else.
func TestRestrictedRing(t *testing.T) {
	for name, opts := range allOptions {
		t.Run(name, func(t *testing.T) {
			opts.Restrictions = &Restrictions{Ops: []uint8{IORING_OP_NOP}, Flags: IOSQE_ASYNC, Registers: []uint8{IORING_REGISTER_RING_FDS, IORING_UNREGISTER_RING_FDS}}
			r := newRing(t, opts)
			for _, tt := range []struct {
				what string
				sqe  SQE
				want unix.Errno
			}{
				{"nothing", SQE{Opcode: IORING_OP_NOP}, 0},
				{"nothing on a worker", SQE{Opcode: IORING_OP_NOP, Flags: IOSQE_ASYNC}, 0},
				{"another flag", SQE{Opcode: IORING_OP_NOP, Flags: IOSQE_IO_DRAIN}, unix.EACCES},
				{"another operation", SQE{Opcode: IORING_OP_SOCKET, Fd: unix.AF_UNIX, Off: unix.SOCK_STREAM}, unix.EACCES},
			} {
				*r.GetSQE() = tt.sqe
				if res := do(t, r, 1)[0]; res != -int32(tt.want) {
					t.Errorf("%s: %d, want %d", tt.what, res, -int32(tt.want))
				}
			}
			if _, err := r.NewProbe(); !errors.Is(err, unix.EACCES) {
				t.Errorf("another registration: %v, want EACCES", err)
			}
			if err := r.RegisterRingFD(); err != nil {
				t.Error(err)
			}
			if err := restrict(r.fd, &Restrictions{Ops: []uint8{IORING_OP_SOCKET}}); err == nil {
				t.Error("the restrictions are changed")
			}
		})
	}
}

// A ring that cannot be restricted is not made.
func TestRingWithoutItsRestrictions(t *testing.T) {
	newRing(t, Options{}) // skips
	r, err := New(Options{Restrictions: &Restrictions{Ops: []uint8{255}}})
	if !errors.Is(err, unix.EINVAL) || r != nil {
		t.Errorf("a ring is made: %v, error %v, want EINVAL", r != nil, err)
	}
}
