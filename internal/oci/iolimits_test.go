package oci

import (
	"testing"

	"golang.org/x/sys/unix"
)

// Limits go behind those of the engine, and everything else stays.
func TestLimitIO(t *testing.T) {
	limits := []ioLimit{{"throttleReadBpsDevice", 1 << 20}, {"throttleWriteIOPSDevice", 10}}
	const ours = `{"major":259,"minor":300,"rate":1048576,"dev.ublk-loop":true}`
	for config, want := range map[string]string{
		`{}`:           `{"linux":{"resources":{"blockIO":{"throttleReadBpsDevice":[` + ours + `],"throttleWriteIOPSDevice":[{"major":259,"minor":300,"rate":10,"dev.ublk-loop":true}]}}}}`,
		`{"linux":{}}`: `{"linux":{"resources":{"blockIO":{"throttleReadBpsDevice":[` + ours + `],"throttleWriteIOPSDevice":[{"major":259,"minor":300,"rate":10,"dev.ublk-loop":true}]}}}}`,
		`{"linux":{"a":1,"resources":{"blockIO":{"weight":5,"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7}]},"pids":{"limit":3}}}}`: `{"linux":{"a":1,"resources":{"blockIO":` +
			`{"throttleReadBpsDevice":[{"major":8,"minor":0,"rate":7},` + ours + `],"throttleWriteIOPSDevice":[{"major":259,"minor":300,"rate":10,"dev.ublk-loop":true}],"weight":5},"pids":{"limit":3}}}}`,
	} {
		got, err := editConfig([]byte(config), func(c object) error { return c.limitIO(unix.Mkdev(259, 300), limits) })
		if err != nil || string(got) != want+"\n" {
			t.Errorf("%s becomes\n%s, error %v, want\n%s", config, got, err, want)
		}
	}
	again := []byte(`{}`)
	for number, limits := range [][]ioLimit{{{"throttleReadBpsDevice", 5}, {"throttleWriteBpsDevice", 6}}, limits} {
		var err error
		if again, err = editConfig(again, func(c object) error { return c.limitIO(unix.Mkdev(259, uint32(299+number)), limits) }); err != nil {
			t.Fatal(err)
		}
	}
	if want := `{"linux":{"resources":{"blockIO":{"throttleReadBpsDevice":[` + ours + `],"throttleWriteBpsDevice":[],"throttleWriteIOPSDevice":[{"major":259,"minor":300,"rate":10,"dev.ublk-loop":true}]}}}}`; string(again) != want+"\n" {
		t.Errorf("a second container of the bundle has\n%s, want\n%s", again, want)
	}
	for _, config := range []string{`{"linux":[]}`, `{"linux":{"resources":3}}`, `{"linux":{"resources":{"blockIO":"x"}}}`, `{"linux":{"resources":{"blockIO":{"throttleReadBpsDevice":{}}}}}`} {
		if got, err := editConfig([]byte(config), func(c object) error { return c.limitIO(1, limits) }); err == nil {
			t.Errorf("%s becomes %s", config, got)
		}
	}
	if got, err := editConfig([]byte(`{"linux":[]}`), func(c object) error { return c.limitIO(1, nil) }); err != nil || string(got) != `{"linux":[]}`+"\n" {
		t.Errorf("without limits the configuration becomes %s, error %v", got, err)
	}
}
