// Csimount is the part of the Secrets Store CSI driver that talks to a provider, for tests: the
// driver's own messages, its checks of an answer, and its atomic writer.
//
//	csimount --socket PATH < request.json
//
// The request has "attributes", "secrets", "target" and "permission". What comes back is one line
// of JSON on standard output: "versions", or "code" and "message" of a refusal.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"sigs.k8s.io/secrets-store-csi-driver/pkg/util/fileutil"
	"sigs.k8s.io/secrets-store-csi-driver/provider/v1alpha1"
)

// As the driver has it in pkg/secrets-store/provider_client.go.
const serviceConfig = `{"methodConfig": [{"name": [{"service": "v1alpha1.CSIDriverProvider"}],
"waitForReady": true, "retryPolicy": {"MaxAttempts": 3, "InitialBackoff": "1s",
"MaxBackoff": "10s", "BackoffMultiplier": 1.1, "RetryableStatusCodes": ["UNAVAILABLE"]}}]}`

const maxAnswer = 4 << 20

type request struct {
	Attributes string `json:"attributes"`
	Secrets    string `json:"secrets"`
	Target     string `json:"target"`
	Permission string `json:"permission"`
}

type answer struct {
	Runtime  string            `json:"runtime,omitempty"`
	Versions map[string]string `json:"versions,omitempty"`
	Code     string            `json:"code,omitempty"`
	Message  string            `json:"message,omitempty"`
}

func main() {
	socket := flag.String("socket", "", "socket of the provider")
	flag.Parse()
	told, err := run(*socket)
	if err != nil {
		refused := status.Convert(err)
		told = answer{Code: refused.Code().String(), Message: refused.Message()}
	}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		fmt.Fprintln(os.Stderr, "csimount:", err)
		os.Exit(1)
	}
}

func run(socket string) (answer, error) {
	var asked request
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return answer{}, err
	}
	connection, err := grpc.NewClient("unix:"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDefaultServiceConfig(serviceConfig),
	)
	if err != nil {
		return answer{}, err
	}
	defer connection.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	client := v1alpha1.NewCSIDriverProviderClient(connection)
	version, err := client.Version(ctx, &v1alpha1.VersionRequest{Version: "v1alpha1"})
	if err != nil {
		return answer{}, err
	}
	mounted, err := client.Mount(ctx, &v1alpha1.MountRequest{
		Attributes: asked.Attributes,
		Secrets:    asked.Secrets,
		TargetPath: asked.Target,
		Permission: asked.Permission,
	})
	if err != nil {
		return answer{}, err
	}
	if mounted.GetObjectVersion() == nil {
		return answer{}, fmt.Errorf("missing object versions")
	}
	versions := make(map[string]string)
	for _, one := range mounted.GetObjectVersion() {
		versions[one.GetId()] = one.GetVersion()
	}
	if err := fileutil.WritePayloads(asked.Target, mounted.GetFiles()); err != nil {
		return answer{}, err
	}
	return answer{Runtime: version.GetRuntimeName(), Versions: versions}, nil
}
