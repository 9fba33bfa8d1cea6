package driver

import (
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer/luks"
)

// The devices of a volume have the cipher of its header. With another one, they would read other data
// behind the first 2 TiB, where the ciphers differ.
func TestCipherOfHeader(t *testing.T) {
	for _, cipher := range []string{"aes-xts-plain64", "aes-xts-plain"} {
		volume := &luks.Volume{Version: 2, Cipher: cipher, KeySize: 64, SectorSize: 4096, IVOffset: 8, Offset: 16 << 20, UUID: "u"}
		if got := transferOf(volume); got.Name != cipher || got.SectorSize != 4096 || got.IVOffset != 8 || got.LUKS != 2 || got.UUID != "u" {
			t.Errorf("%s: transfer %+v", cipher, got)
		}
		if got := coverOfVolume(volume); got.Cipher != cipher || got.Key.Bytes != 64 || got.SectorSize != 4096 || got.IVOffset != 8 || got.Location.Start != 32768 {
			t.Errorf("%s: line %+v", cipher, got)
		}
	}
}
