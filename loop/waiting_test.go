package loop

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer"
)

func TestIsConfig(t *testing.T) {
	id, other := uint32(1), uint32(2)
	base := Config{ID: &id, Offset: 512, OnCrash: CrashReissue, Transfer: TransferConfig{Name: transfer.AESXTSPlain64}}
	s := state{Config: base}
	s.Config.ID = &other // an equal number at another address is the same id
	s.Config.Transfer.KeyBytes = 64
	same := base
	same.Key = secretOf(t, testKey)
	if !s.isConfig(&same) {
		t.Error("the same one is not")
	}
	for name, change := range map[string]func(*Config){
		"read-only":   func(c *Config) { c.ReadOnly = true },
		"offset":      func(c *Config) { c.Offset = 0 },
		"size limit":  func(c *Config) { c.SizeLimit = 512 },
		"sector size": func(c *Config) { c.SectorSize = 4096 },
		"on crash":    func(c *Config) { c.OnCrash = CrashRequeue },
		"transfer":    func(c *Config) { c.Transfer.Name = transfer.XOR },
		"iv offset":   func(c *Config) { c.Transfer.IVOffset = 8 },
	} {
		c := base
		change(&c)
		if s.isConfig(&c) {
			t.Errorf("another %s is the same", name)
		}
	}
}
