package driver

import (
	"math/big"
	"strings"
	"testing"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

func TestChooseSize(t *testing.T) {
	for _, tt := range []struct {
		required, limit, least, want int64
		code                         codes.Code
	}{
		{0, 0, 0, defaultSize, codes.OK},
		{1, 0, 0, 4096, codes.OK},
		{4097, 0, 0, 8192, codes.OK},
		{4097, 8191, 0, 0, codes.OutOfRange},
		{8192, 8192, 0, 8192, codes.OK},
		{0, 10000, 0, 8192, codes.OK},
		{0, 100, 0, 0, codes.OutOfRange},
		{1 << 20, 0, 300 << 20, 300 << 20, codes.OK},
		{1 << 20, 200 << 20, 300 << 20, 0, codes.OutOfRange},
		{1<<63 - 1, 0, 0, 0, codes.OutOfRange},
		{-1, 0, 0, 0, codes.InvalidArgument},
		{0, -1, 0, 0, codes.InvalidArgument},
		{8192, 4096, 0, 0, codes.InvalidArgument},
	} {
		got, err := chooseSize(&csi.CapacityRange{RequiredBytes: tt.required, LimitBytes: tt.limit}, tt.least, defaultSize)
		if got != tt.want || status.Code(err) != tt.code {
			t.Errorf("%+v: %d, error %v", tt, got, err)
		}
	}
}

func TestParseParameters(t *testing.T) {
	s, err := parseParameters(map[string]string{
		"provisioning": "thick", "directIO": "on", "encryption": "luks2", "csi.storage.k8s.io/pvc/name": "x",
	})
	if want := (pool.Settings{Thick: true, DirectIO: "on", Encrypted: true}); err != nil || s != want {
		t.Errorf("%+v, error %v", s, err)
	}
	if s, err := parseParameters(nil); err != nil || s != (pool.Settings{DirectIO: "auto"}) {
		t.Errorf("defaults: %+v, error %v", s, err)
	}
	s, err = parseParameters(map[string]string{"snapshotsInUse": "layers", "provisioning": "thick"})
	if want := (pool.Settings{DirectIO: "auto", Layered: true, Thick: true}); err != nil || s != want {
		t.Errorf("%+v, error %v", s, err)
	}
	if _, err := parseParameters(map[string]string{"encryption": "luks2", "snapshotsInUse": "layers"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("layers and encryption: error %v", err)
	}
	for name, value := range map[string]string{"snapshotsInUse": "cow", "provisioning": "fat", "directIO": "", "encryption": "luks1", "Provisioning": "thin", "fsType": "ext4"} {
		if _, err := parseParameters(map[string]string{name: value}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %s: error %v", name, value, err)
		}
	}
}

func TestParseQuantity(t *testing.T) {
	for text, want := range map[string]int64{"1": 1, "1Ki": 1024, "5M": 5e6, "2Gi": 2 << 30, "3Ti": 3 << 40} {
		if got, err := parseQuantity(text); got != want || err != nil {
			t.Errorf("%q: %d, error %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "Gi", "1.5Gi", "1GiB", "9223372036854775807Ki", "1 "} {
		if _, err := parseQuantity(text); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%q: error %v", text, err)
		}
	}
}

// A size that is accepted is that of the number, with no more than an int64.
func FuzzParseQuantity(f *testing.F) {
	for _, text := range []string{"1", "1Ki", "9223372036854775807", "9223372036854775807Ki", "00001G", "8388608Ti", "1e3"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseQuantity(text)
		if err != nil {
			if status.Code(err) != codes.InvalidArgument {
				t.Errorf("%q: error %v", text, err)
			}
			return
		}
		digits := strings.TrimRight(text, "kKMGTi")
		want, ok := new(big.Int).SetString(digits, 10)
		unit, base := strings.TrimSuffix(text[len(digits):], "i"), int64(1000)
		if strings.HasSuffix(text, "i") {
			base = 1024
		}
		power := int64(strings.Index("KMGT", strings.ToUpper(unit)) + 1) // 0 without a unit
		if unit == "" {
			power = 0
		}
		if !ok || want.Mul(want, new(big.Int).Exp(big.NewInt(base), big.NewInt(power), nil)).Cmp(big.NewInt(got)) != 0 || got <= 0 {
			t.Errorf("%q is %d", text, got)
		}
	})
}

// The capacity is what remains if all volumes are written to completely.
func TestAvailable(t *testing.T) {
	const g = 1 << 30
	for what, tt := range map[string]struct {
		space   pool.Space
		u       usage
		reserve int64
		factor  float64
		want    int64
	}{
		"an empty pool":            {pool.Space{Total: 100 * g, Free: 100 * g}, usage{}, 0, 1, 100 * g},
		"a reserve":                {pool.Space{Total: 100 * g, Free: 100 * g}, usage{}, 10 * g, 1, 90 * g},
		"files of others":          {pool.Space{Total: 100 * g, Free: 70 * g}, usage{}, 0, 1, 70 * g},
		"a thin volume":            {pool.Space{Total: 100 * g, Free: 99 * g}, usage{promised: 40 * g, allocated: g}, 0, 1, 60 * g},
		"overcommitment":           {pool.Space{Total: 100 * g, Free: 99 * g}, usage{promised: 40 * g, allocated: g}, 0, 2, 160 * g},
		"a clone shares all":       {pool.Space{Total: 100 * g, Free: 90 * g}, usage{promised: 20 * g, allocated: 20 * g, doubled: 10 * g}, 0, 1, 80 * g},
		"a clone beside others":    {pool.Space{Total: 100 * g, Free: 60 * g}, usage{promised: 20 * g, allocated: 20 * g, doubled: 10 * g}, 0, 1, 50 * g},
		"a full volume that grows": {pool.Space{Total: 100 * g, Free: 20 * g}, usage{allocated: 80 * g, own: 80 * g}, 5 * g, 1, 95 * g},
		"less than the reserve":    {pool.Space{Total: 100 * g, Free: 5 * g}, usage{}, 10 * g, 1, 0},
		"more promised than free":  {pool.Space{Total: 100 * g, Free: 100 * g}, usage{promised: 150 * g}, 0, 1, 0},
	} {
		if got := available(tt.space, tt.u, tt.reserve, tt.factor); got != tt.want {
			t.Errorf("%s: %d GiB, want %d", what, got/g, tt.want/g)
		}
	}
}

func TestPage(t *testing.T) {
	var ids []string
	for _, c := range "0123456789" {
		ids = append(ids, "vol-000000000000-0000000000000000000000000000000"+string(c))
	}
	id := func(i int) string { return ids[i] }
	var seen int
	for token, pages := "", 0; ; pages++ {
		from, to, next, err := page(pool.Volumes, len(ids), id, token, 3)
		if err != nil || from != seen || pages > 3 {
			t.Fatalf("page %d: from %d to %d, error %v", pages, from, to, err)
		}
		seen = to
		if token = next; next == "" {
			break
		}
	}
	if seen != len(ids) {
		t.Errorf("seen %d", seen)
	}
	// The id of the token was deleted meanwhile.
	ids = append(ids[:3:3], ids[4:]...)
	if from, _, _, err := page(pool.Volumes, len(ids), id, "vol-000000000000-00000000000000000000000000000003", 3); from != 3 || err != nil {
		t.Errorf("from %d, error %v", from, err)
	}
	if _, _, _, err := page(pool.Volumes, len(ids), id, "x", 3); status.Code(err) != codes.Aborted {
		t.Errorf("a wrong token: error %v", err)
	}
	if _, _, _, err := page(pool.Volumes, len(ids), id, "", -1); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a negative number: error %v", err)
	}
}

// A second call for an object is refused while the first runs.
func TestLocks(t *testing.T) {
	var l locks
	if !l.try("a") || l.try("a") || !l.try("b") {
		t.Error("an object is locked twice, or not at all")
	}
	l.unlock("a", "b")
	if !l.try("a") {
		t.Error("the lock stays")
	}
}

// Only publications for several writers exist beside each other.
func TestConflicts(t *testing.T) {
	const one, several, legacy = "SINGLE_NODE_SINGLE_WRITER", "SINGLE_NODE_MULTI_WRITER", "SINGLE_NODE_WRITER"
	for _, tt := range []struct {
		is, want string
		code     codes.Code
	}{
		{several, several, codes.OK},
		{legacy, several, codes.OK},
		{one, several, codes.FailedPrecondition},
		{several, one, codes.FailedPrecondition},
		{one, one, codes.FailedPrecondition},
		{legacy, legacy, codes.FailedPrecondition},
	} {
		v := &pool.Volume{Publications: []pool.Publication{{Target: "/a", Mode: tt.is}}}
		known, err := conflicts(v, &pool.Publication{Target: "/b", Mode: tt.want})
		if known || status.Code(err) != tt.code {
			t.Errorf("%s beside %s: %v, error %v", tt.want, tt.is, known, err)
		}
		if known, err := conflicts(v, &pool.Publication{Target: "/a", Mode: tt.is}); !known || err != nil {
			t.Errorf("%s again: %v, error %v", tt.is, known, err)
		}
		if _, err := conflicts(v, &pool.Publication{Target: "/a", Mode: tt.is, ReadOnly: true}); status.Code(err) != codes.AlreadyExists {
			t.Errorf("%s again, read-only: error %v", tt.is, err)
		}
	}
}
