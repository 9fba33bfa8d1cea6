package ublktest

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// Ability is something that tests need and that some kernels lack.
type Ability string

// Some kernels of the matrix lack these abilities.
const (
	ZeroCopy Ability = "zero copy" // buffers that a command registers
	// AutoRegister is the mode in which the driver registers buffers by itself.
	AutoRegister Ability = "automatic registration of buffers"
	UpdateSize   Ability = "another size for a device in use"
	// LinkedCommands are commands whose payload is kept when they are submitted behind
	// another entry.
	LinkedCommands Ability = "linked commands"
	// SafeRecovery is a recovery that can be killed at any moment, and then repeated or
	// refused. It never hangs.
	SafeRecovery Ability = "recovery that can be killed"
	// TaskRestrictions are restrictions of all rings that a task makes.
	TaskRestrictions Ability = "restrictions of a task's rings"
)

// All kernels of the matrix have these abilities.
const (
	CountsCachedPages Ability = "cachestat(2)"
	URingSwitch       Ability = "sysctl kernel.io_uring_disabled"
)

// Offers is what a kernel of the matrix (scripts/kernels.txt) is known to offer.
type Offers struct {
	// Features are the driver's features.
	Features ublk.Features
	// Abilities are the other abilities that tests may be skipped for.
	Abilities []Ability
}

const (
	features6_12 = uapi.UBLK_F_URING_CMD_COMP_IN_TASK | uapi.UBLK_F_NEED_GET_DATA |
		uapi.UBLK_F_USER_RECOVERY | uapi.UBLK_F_USER_RECOVERY_REISSUE | uapi.UBLK_F_UNPRIVILEGED_DEV |
		uapi.UBLK_F_CMD_IOCTL_ENCODE | uapi.UBLK_F_USER_COPY | uapi.UBLK_F_ZONED
	features6_18 = features6_12 | uapi.UBLK_F_SUPPORT_ZERO_COPY | uapi.UBLK_F_USER_RECOVERY_FAIL_IO | uapi.UBLK_F_UPDATE_SIZE | uapi.UBLK_F_AUTO_BUF_REG |
		uapi.UBLK_F_QUIESCE | uapi.UBLK_F_PER_IO_DAEMON | uapi.UBLK_F_BUF_REG_OFF_DAEMON
	features7_3 = features6_18 | uapi.UBLK_F_BATCH_IO | uapi.UBLK_F_INTEGRITY | uapi.UBLK_F_SAFE_STOP_DEV |
		uapi.UBLK_F_NO_AUTO_PART_SCAN | uapi.UBLK_F_SHMEM_ZC | uapi.UBLK_F_IO_DESC_SIZE
)

// Matrix has the offers of each kernel of the matrix, by the first two numbers of its
// release.
var Matrix = map[string]Offers{
	"6.12": {features6_12, []Ability{SafeRecovery, CountsCachedPages, URingSwitch}},
	// A killed recovery may hang (docs/kernels.md).
	"6.18": {features6_18, []Ability{ZeroCopy, AutoRegister, UpdateSize, LinkedCommands, CountsCachedPages, URingSwitch}},
	"7.3":  {features7_3, []Ability{ZeroCopy, AutoRegister, UpdateSize, LinkedCommands, SafeRecovery, TaskRestrictions, CountsCachedPages, URingSwitch}},
}

// Pinned returns the known offers of the running kernel. ok is false if the kernel is not
// in the matrix, or if the tests did not choose the machine.
func Pinned(t testing.TB) (offers Offers, release string, ok bool) {
	t.Helper()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		t.Fatal(err)
	}
	release = unix.ByteSliceToString(name.Release[:])
	if !Promised(Own) {
		return Offers{}, release, false
	}
	offers, ok = Matrix[series(release)]
	return offers, release, ok
}

// series returns the first two numbers of a release: 6.12 for 6.12.117+deb13.
func series(release string) string {
	major, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	return major + "." + rest
}

// Lacks skips a test because the kernel lacks an ability. If the kernel is in the matrix
// and known to have the ability, the test fails instead.
func Lacks(t testing.TB, ability Ability) {
	t.Helper()
	offers, release, _ := Pinned(t)
	if slices.Contains(offers.Abilities, ability) {
		t.Fatalf("Linux %s has lost: %s", release, ability)
	}
	t.Skipf("Linux %s has no %s", release, ability)
}

// CheckAbility fails a test if an ability was found or missing in contradiction to the
// known offers of the running kernel.
func CheckAbility(t testing.TB, ability Ability, found bool) {
	t.Helper()
	offers, release, ok := Pinned(t)
	if known := slices.Contains(offers.Abilities, ability); ok && known != found {
		t.Errorf("Linux %s: %s is there: %v, want %v", release, ability, found, known)
	}
}

// String lists the offers.
func (o Offers) String() string { return fmt.Sprintf("%v; %q", o.Features, o.Abilities) }
