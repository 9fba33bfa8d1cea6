package driver

import (
	"context"
	"os"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/ublk-loop/ublk-loop/client"
	"github.com/ublk-loop/ublk-loop/cmd/ublk-loop-csi/pool"
)

// attachEncrypted returns the open device of an encrypted volume.
func (d *Driver) attachEncrypted(context.Context, *pool.Volume, *os.File, client.Config, map[string]string) (*client.Held, error) {
	return nil, status.Error(codes.Unimplemented, "encryption")
}
