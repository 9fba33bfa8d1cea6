package driver

import (
	"context"

	csi "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// GetPluginInfo implements csi.IdentityServer.
func (d *Driver) GetPluginInfo(context.Context, *csi.GetPluginInfoRequest) (*csi.GetPluginInfoResponse, error) {
	return &csi.GetPluginInfoResponse{Name: d.opts.Name, VendorVersion: d.opts.Version}, nil
}

// GetPluginCapabilities implements csi.IdentityServer. Volumes grow in use if the kernel can do that,
// and otherwise when they are staged again. NodeGetCapabilities has EXPAND_VOLUME in both cases: the
// call says which size the next NodeStageVolume has to make.
func (d *Driver) GetPluginCapabilities(ctx context.Context, _ *csi.GetPluginCapabilitiesRequest) (*csi.GetPluginCapabilitiesResponse, error) {
	expansion := csi.PluginCapability_VolumeExpansion_OFFLINE
	if server, err := d.devices.server.status(ctx); err != nil {
		return nil, failure(err)
	} else if server.Resizes {
		expansion = csi.PluginCapability_VolumeExpansion_ONLINE
	}
	service := func(t csi.PluginCapability_Service_Type) *csi.PluginCapability {
		return &csi.PluginCapability{Type: &csi.PluginCapability_Service_{Service: &csi.PluginCapability_Service{Type: t}}}
	}
	return &csi.GetPluginCapabilitiesResponse{Capabilities: []*csi.PluginCapability{
		service(csi.PluginCapability_Service_CONTROLLER_SERVICE),
		service(csi.PluginCapability_Service_VOLUME_ACCESSIBILITY_CONSTRAINTS),
		{Type: &csi.PluginCapability_VolumeExpansion_{VolumeExpansion: &csi.PluginCapability_VolumeExpansion{
			Type: expansion,
		}}},
	}}, nil
}

// Probe implements csi.IdentityServer. The driver is ready when ublk-loop serve answers and
// the pool was reconciled.
func (d *Driver) Probe(ctx context.Context, _ *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	if err := d.Reconcile(ctx); err != nil {
		return &csi.ProbeResponse{Ready: wrapperspb.Bool(false)}, nil //nolint:nilerr // Ready says it
	}
	if _, err := d.devices.server.status(ctx); err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "ublk-loop serve does not answer: %v", err)
	}
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
}
