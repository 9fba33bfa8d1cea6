package table

import (
	"errors"
	"strings"
	"syscall"
	"testing"
)

// Root hashes in the cases: of sha256, sha512 and sha1.
var (
	root256 = strings.Repeat("0123456789abcdef", 4)
	root512 = root256 + root256
	root1   = root256[:40]
)

// verityTree has the arguments of verity from the size of a data block to the salt, and
// dataAndTree is a line with a tree on the same disk.
var (
	verityTree  = "4096 4096 512 600 sha256 " + root256 + " -"
	dataAndTree = "0 4096 verity 1 $A $A " + verityTree
)

// verityAccepted, verityRefused and verityStricter are the parts of accepted, refused and
// stricter about verity.
var (
	verityAccepted = []printedTable{
		{dataAndTree, ""},
		{"0 4096 verity 1 $B $A " + verityTree, ""},
		{"0 8 verity 1 $A $B 4096 4096 1 0 sha256 " + root256 + " -", ""},
		{"0 8 verity 01 $A $A 04096 04096 01 00 sha256 " + strings.ToUpper(root256) + " AbCd", "0 8 verity 1 $A $A 4096 4096 1 0 sha256 " + root256 + " abcd"},
		{"0 8 verity 1 $A $A 4096 4096 1 2048 sha256 " + root256 + " -", ""},
		{"0 1 verity 1 $A $A 512 512 1000 2000 sha1 " + root1 + " 00", ""},
		{"0 1000 verity 1 $A $A 512 1024 1000 2000 sha512 " + root512 + " " + strings.Repeat("ab", 256), ""},
		{"0 1000 verity 1 $A $A 1024 8192 500 500 sha256 " + root256 + " -", ""},
		{"0 16 verity 1 $A $A 4096 524288 2 14 sha256 " + root256 + " -", ""},
		{dataAndTree + " 0", dataAndTree},
		{strings.Replace(dataAndTree, " verity", " \tverity", 1), dataAndTree},
		{dataAndTree + " 1 ignore_corruption", ""},
		{dataAndTree + " 2 CHECK_at_most_once Ignore_Zero_Blocks", dataAndTree + " 2 ignore_zero_blocks check_at_most_once"},
		{
			dataAndTree + " 4 try_verify_in_tasklet check_at_most_once ignore_zero_blocks ignore_corruption",
			dataAndTree + " 4 ignore_corruption ignore_zero_blocks check_at_most_once try_verify_in_tasklet",
		},
	}

	verityRefused = []refusedTable{
		{"0 8 verity", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 4096 1 0 sha256 " + root256, syscall.EINVAL},
		{"0 8 verity 2 $A $A 4096 4096 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity x $A $A 4096 4096 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 256 4096 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 3072 4096 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 256 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 0 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 0 4096 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 16 verity 1 $A $A 8192 4096 2 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $B $A 2048 4096 2 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $B 4096 2048 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 16 verity 1 $A $A 4096 4096 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 4 verity 1 $A $A 4096 4096 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 4096 1 18446744073709551615 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 4096 18446744073709551615 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 4096 1 0 sha256 " + root256[1:] + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 4096 1 0 sha256 x" + root256[1:] + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 4096 1 0 sha1 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 4096 1 0 sha256 " + root256 + " abc", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 4096 1 0 sha256 " + root256 + " x0", syscall.EINVAL},
		{"0 8 zero\n8 8 verity 1 $A $A 4096 4096 1 0 sha256 " + root256 + " -", syscall.EINVAL},
		{"0 8 verity 1 $A $A 4096 4096 1 0 sha256 " + root256 + " -\n8 8 zero", syscall.EINVAL},
		{dataAndTree + " x", syscall.EINVAL},
		{dataAndTree + " 2 ignore_corruption", syscall.EINVAL},
		{dataAndTree + " 1 nope", syscall.EINVAL},
		{dataAndTree + " 2 ignore_corruption ignore_corruption", syscall.EINVAL},
	}

	verityStricter = []refusedTable{
		{"0 4096 verity 0 $A $A " + verityTree, ErrUnsupported},
		{"0 8 verity 1 $A $A 4096 1048576 1 0 sha256 " + root256 + " -", ErrInvalid},
		{"0 8 verity 1 $A $A 4096 4096 1 0 sha256 " + root256 + " " + strings.Repeat("ab", 257), ErrInvalid},
		{dataAndTree + " 1 restart_on_corruption", ErrUnsupported},
		{dataAndTree + " 1 panic_on_corruption", ErrUnsupported},
		{dataAndTree + " 1 ignore_corruption surplus", ErrInvalid},
		{dataAndTree + " 2 ignore_zero_blocks ignore_zero_blocks", ErrInvalid},
	}
)

// These options of the kernel are refused by name. Without their arguments the kernel refuses
// them too.
func TestVerityOptionsRefused(t *testing.T) {
	for _, option := range []string{
		"restart_on_error", "panic_on_error", "use_fec_from_device $A", "fec_roots 2", "fec_blocks 8", "fec_start 0", "root_hash_sig_key_desc k",
	} {
		text := withDevices(dataAndTree+" 2 "+option, disk512, disk4096)
		if strings.Count(option, " ") == 0 {
			text = withDevices(dataAndTree+" 1 "+option, disk512, disk4096)
		}
		_, err := Parse([]byte(text), Options{})
		name, _, _ := strings.Cut(option, " ")
		if !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// verityStacks are stacks with verity, and the error of those that are refused.
var verityStacks = []refusedTable{
	{"a,,,ro," + dataAndTree, nil},
	{"a,,,ro," + dataAndTree + ";b,,,ro,0 8 linear /dev/mapper/a 8", nil},
	{"a,,,rw,0 16384 linear $A 0;b,,,ro,0 4096 verity 1 /dev/mapper/a /dev/mapper/a " + verityTree, nil},
	{"a,,,rw," + dataAndTree, syscall.EINVAL},
	{"a,,,," + dataAndTree, syscall.EINVAL},
	{"a,,,ro," + dataAndTree + ";b,,,ro,0 8 linear /dev/mapper/a 4", syscall.EINVAL},
	{"a,,,ro," + dataAndTree + ";b,,,ro,0 4 linear /dev/mapper/a 8", syscall.EINVAL},
	// The data is longer than its device; the start of the tree is 2^64 bytes and 600 blocks.
	{"a,,,ro,0 16392 verity 1 $A $B 4096 4096 2049 0 sha256 " + root256 + " -", syscall.EINVAL},
	{"a,,,ro,0 4096 verity 1 $A $A 4096 4096 512 4503599627371096 sha256 " + root256 + " -", syscall.E2BIG},
	{"a,,,rw,0 4800 linear $A 0;b,,,ro,0 4096 verity 1 /dev/mapper/a /dev/mapper/a " + verityTree, syscall.E2BIG},
}

// A table with verity has to be read-only. What is above it consists of whole data blocks.
func TestVerityStacks(t *testing.T) {
	for _, tt := range verityStacks {
		text := withDevices(tt.text, disk512, disk4096)
		_, err := parseCase(t, text)
		switch {
		case tt.err == nil && err != nil:
			t.Errorf("%q: %v", text, err)
		case tt.err != nil && !errors.Is(err, syscall.EINVAL):
			t.Errorf("%q: error %v", text, err)
		}
	}
	s, err := parseCase(t, withDevices(dataAndTree, disk512, disk4096))
	if err != nil || !s.Tables[0].ReadOnly {
		t.Errorf("a line with verity makes no read-only table: %v", err)
	}
}

// The kernel accepts and refuses the same stacks.
func TestKernelDmsetupVerityStacks(t *testing.T) {
	m := newMapper(t)
	for _, tt := range verityStacks {
		text := withDevices(tt.text, m.a, m.b)
		if _, err := m.createdStack(text); !errors.Is(err, tt.err) {
			t.Errorf("%q: dmsetup: %v, not %v", text, err, tt.err)
		}
	}
}
