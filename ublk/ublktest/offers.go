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

// An Ability is something that tests need and that not every kernel has.
type Ability string

// The abilities that some kernels of the matrix lack.
const (
	ZeroCopy Ability = "zero copy" // buffers registered by command
	// AutoRegister is the mode in which the driver registers buffers by itself.
	AutoRegister Ability = "automatic registration of buffers"
	UpdateSize   Ability = "another size for a device in use"
	// LinkedCommands are commands whose content is kept when they are submitted
	// behind another entry.
	LinkedCommands Ability = "linked commands"
	// SafeRecovery is a recovery that can be killed at any moment and done again
	// or refused: it never hangs.
	SafeRecovery Ability = "recovery that can be killed"
)

// Abilities that all kernels of the matrix have.
const (
	CountsCachedPages Ability = "cachestat(2)"
	URingSwitch       Ability = "sysctl kernel.io_uring_disabled"
)

// Offers is what a kernel of the matrix (scripts/kernels.txt) is known to offer.
type Offers struct {
	// Features are those of the driver.
	Features ublk.Features
	// Abilities are those that tests may otherwise be skipped for.
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

// Matrix is what each kernel of the matrix offers, by the first two numbers of
// its release.
var Matrix = map[string]Offers{
	"6.12": {features6_12, []Ability{SafeRecovery, CountsCachedPages, URingSwitch}},
	// A recovery that is killed may hang (docs/kernels.md).
	"6.18": {features6_18, []Ability{ZeroCopy, AutoRegister, UpdateSize, LinkedCommands, CountsCachedPages, URingSwitch}},
	"7.3":  {features7_3, []Ability{ZeroCopy, AutoRegister, UpdateSize, LinkedCommands, SafeRecovery, CountsCachedPages, URingSwitch}},
}

// Pinned returns what the running kernel is known to offer. It reports false for
// one that is not of the matrix, and on a machine that the tests did not choose.
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

// series returns the first two numbers of a release: 6.12 of 6.12.117+deb13.
func series(release string) string {
	major, rest, _ := strings.Cut(release, ".")
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		rest = rest[:end]
	}
	return major + "." + rest
}

// Lacks skips a test because the kernel lacks an ability. On a kernel of the
// matrix that is known to have it, the test fails instead.
func Lacks(t testing.TB, ability Ability) {
	t.Helper()
	offers, release, _ := Pinned(t)
	if slices.Contains(offers.Abilities, ability) {
		t.Fatalf("Linux %s has lost: %s", release, ability)
	}
	t.Skipf("Linux %s has no %s", release, ability)
}

// CheckAbility fails a test where an ability that was found, or not, is not what
// the running kernel is known to have.
func CheckAbility(t testing.TB, ability Ability, found bool) {
	t.Helper()
	offers, release, ok := Pinned(t)
	if known := slices.Contains(offers.Abilities, ability); ok && known != found {
		t.Errorf("Linux %s: %s is there: %v, want %v", release, ability, found, known)
	}
}

// String lists what is offered.
func (o Offers) String() string { return fmt.Sprintf("%v; %q", o.Features, o.Abilities) }
