package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/uapi"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

func TestFeatures(t *testing.T) {
	b := newBench()
	offered := ublk.Features(uapi.UBLK_F_SUPPORT_ZERO_COPY|uapi.UBLK_F_CMD_IOCTL_ENCODE) | 1<<40
	if err := b.printFeaturesOf("6.15.1", offered, false); err != nil {
		t.Fatal(err)
	}
	want := `kernel 6.15.1, features 0x10000000041, buffer mode register

FEATURE                 SINCE  HERE  WITHOUT IT
SUPPORT_ZERO_COPY       6.15   yes   the driver copies every byte once more (--zero-copy=on is refused)
URING_CMD_COMP_IN_TASK  6.0    no    -
NEED_GET_DATA           6.0    no    -
USER_RECOVERY           6.1    no    no device outlives its server (--on-crash=requeue and reissue are refused)
USER_RECOVERY_REISSUE   6.1    no    --on-crash=reissue is refused
UNPRIVILEGED_DEV        6.3    no    -
CMD_IOCTL_ENCODE        6.4    yes   nothing works: the commands have other numbers
USER_COPY               6.5    no    with zero copy, a short first write to a chunk of a snapshot is three writes, not one
ZONED                   6.6    no    -
USER_RECOVERY_FAIL_IO   6.13   no    -
UPDATE_SIZE             6.16   no    a device keeps its size (resize is refused)
AUTO_BUF_REG            6.16   no    with zero copy, two more commands a request
QUIESCE                 6.16   no    serve serves requests itself, with its privileges
PER_IO_DAEMON           6.16   no    -
BUF_REG_OFF_DAEMON      6.17   no    -
BATCH_IO                7.0    no    -
INTEGRITY               7.0    no    -
SAFE_STOP_DEV           7.0    no    del looks for users of a device in /proc, and may miss one that comes meanwhile
NO_AUTO_PART_SCAN       7.0    no    a device that the server itself serves cannot be scanned for partitions later (BLKRRPART)
SHMEM_ZC                7.1    no    -
IO_DESC_SIZE            7.3    no    -
bit40                   -      yes   -

SANDBOX  HERE  WITHOUT IT
one      yes   a
another  no    b
`
	if got := b.out.String(); got != want {
		t.Errorf("output\n%s\nwant\n%s", got, want)
	}
}

// printFeaturesOf runs features on a driver that offers these features.
func (b *bench) printFeaturesOf(release string, offered ublk.Features, asJSON bool) error {
	b.drv.features = offered
	return b.runFeatures(release, asJSON)
}

func TestFeaturesJSON(t *testing.T) {
	b := newBench()
	if err := b.printFeaturesOf("7.3", uapi.UBLK_F_SUPPORT_ZERO_COPY|uapi.UBLK_F_AUTO_BUF_REG, true); err != nil {
		t.Fatal(err)
	}
	var got featuresOutput
	if err := json.Unmarshal(b.out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Kernel != "7.3" || got.Features != "0x801" || got.BufferMode != "auto-register" || len(got.List) != len(ublk.KnownFeatures) ||
		!reflect.DeepEqual(got.Sandbox, []partOutput{{"one", true, "a"}, {"another", false, "b"}}) {
		t.Errorf("output is %+v", got)
	}
	want := featureOutput{
		Name: "AUTO_BUF_REG", Bit: 11, Since: "6.16", Offered: true, Used: true,
		Without: "with zero copy, two more commands a request",
	}
	if got.List[11] != want {
		t.Errorf("bit 11 is %+v, want %+v", got.List[11], want)
	}
}

func TestFeaturesErrors(t *testing.T) {
	b := newBench()
	b.drv.err = fmt.Errorf("get features: %w", ublk.ErrNotSupported)
	b.check(t, []string{"features"}, 1, "", "ublk-loop: error: get features: not supported by this kernel\n")
	b.drv = nil
	b.check(t, []string{"features", "--json"}, 1, "", "ublk-loop: error: open /dev/ublk-control: the ublk driver is not loaded\n"+
		"hint: add and serve load it as root, and so does modprobe ublk_drv\n")
}

func TestBestMode(t *testing.T) {
	for offered, want := range map[ublk.Features]ublk.BufferMode{
		0:                             ublk.BufferCopy,
		uapi.UBLK_F_AUTO_BUF_REG:      ublk.BufferCopy,
		uapi.UBLK_F_SUPPORT_ZERO_COPY: ublk.BufferRegister,
		uapi.UBLK_F_SUPPORT_ZERO_COPY | uapi.UBLK_F_AUTO_BUF_REG: ublk.BufferAutoRegister,
	} {
		if got := bestMode(offered); got != want {
			t.Errorf("bestMode(%v) is %v, want %v", offered, got, want)
		}
	}
}

// docs/json.md describes each key, and no others.
func TestJSONDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = false
	}
	for _, v := range []any{client.Device{}, client.Limits{}, client.Transfer{}, featuresOutput{}, featureOutput{}, client.Stats{}, client.DeviceStats{}, client.OpStats{}, client.Unrecovered{}, cowInfo{}, cowDiff{}, cowRange{}} {
		for field := range reflect.TypeOf(v).Fields() {
			key, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if _, found := documented[key]; !found && key != "-" {
				t.Errorf("%T: docs/json.md lacks %q", v, key)
			}
			documented[key] = true
		}
	}
	for _, v := range []any{client.Device{File: "\xff"}, client.DeviceStats{File: "\xff"}} { // with the keys of such a name
		var keys map[string]json.RawMessage
		text, err := json.Marshal(v)
		if err == nil {
			err = json.Unmarshal(text, &keys)
		}
		if err != nil {
			t.Fatal(err)
		}
		for key := range keys {
			if _, found := documented[key]; !found {
				t.Errorf("%T: docs/json.md lacks %q", v, key)
			}
			documented[key] = true
		}
	}
	for key, exists := range documented {
		if !exists {
			t.Errorf("docs/json.md has %q, which there is not", key)
		}
	}
}

// features does not show zero copy if the driver offers it but refuses it to devices.
func TestFeaturesAsksADevice(t *testing.T) {
	const copyOnly = uapi.UBLK_F_CMD_IOCTL_ENCODE
	for _, tt := range []struct{ offers, withheld, want ublk.Features }{
		{copyOnly, 0, copyOnly},
		{copyOnly | uapi.UBLK_F_SUPPORT_ZERO_COPY, 0, copyOnly | uapi.UBLK_F_SUPPORT_ZERO_COPY},
		{copyOnly | uapi.UBLK_F_SUPPORT_ZERO_COPY, uapi.UBLK_F_SUPPORT_ZERO_COPY, copyOnly},
	} {
		fake := &ublktest.Fake{Offers: tt.offers, Withheld: tt.withheld}
		got, err := (&kernel{ublk.NewControl(fake)}).Features()
		if got != tt.want || err != nil {
			t.Errorf("offered %v, withheld %v: %v, error %v; want %v", tt.offers, tt.withheld, got, err, tt.want)
		}
		if left := fake.IDs(); len(left) > 0 {
			t.Errorf("devices %v are left", left)
		}
	}
}

// docs/kernels.md has each feature of the driver with its release, in the table of those that the
// program uses or in the other one.
func TestFeaturesDocumented(t *testing.T) {
	text := readDocument(t, "../../docs/kernels.md")
	row := regexp.MustCompile("(?m)^\\| (`[^|]*) \\| ([^|]*) \\|")
	tables := map[bool]map[string]string{}
	for used, heading := range map[bool]string{true: "features that ublk-loop uses", false: "features that ublk-loop does not use"} {
		_, table, _ := strings.Cut(text, "\n## Driver "+heading+"\n")
		table, _, _ = strings.Cut(table, "\n## ")
		tables[used] = map[string]string{}
		for _, m := range row.FindAllStringSubmatch(table, -1) {
			for _, name := range regexp.MustCompile("`([A-Z_]+)`").FindAllStringSubmatch(m[1], -1) {
				tables[used][name[1]] = m[2]
			}
		}
	}
	for _, f := range describeFeatures("", 0).List {
		if since := tables[f.Used][f.Name]; !strings.HasSuffix(since, f.Since) {
			t.Errorf("%s, used: %v, is since %s, and docs/kernels.md has %q", f.Name, f.Used, f.Since, since)
		}
		delete(tables[f.Used], f.Name)
	}
	if len(tables[true])+len(tables[false]) > 0 {
		t.Errorf("docs/kernels.md has other features: %v", tables)
	}
}
