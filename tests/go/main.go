// Apiserver is a Kubernetes API server for tests of the KMS plugin: kube-apiserver's own code for
// encryption, storage, hot reload and health, with custom resources and Secrets over an etcd in
// the same process.
//
//	apiserver --data DIR --encryption FILE [--etcd URL]
//
// When it listens it prints one line of JSON on standard output: "api" (HTTP on loopback, without
// a credential) and "etcd".
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"k8s.io/apiextensions-apiserver/pkg/cmd/server/options"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/klog/v2"
)

func main() {
	data := flag.String("data", "", "folder for etcd and certificates")
	encryption := flag.String("encryption", "", "EncryptionConfiguration, read again when it changes")
	etcd := flag.String("etcd", "", "an etcd that runs already")
	klog.InitFlags(nil)
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *data, *encryption, *etcd); err != nil {
		fmt.Fprintln(os.Stderr, "apiserver:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, data, encryption, etcd string) error {
	if etcd == "" {
		started, err := startEtcd(filepath.Join(data, "etcd"))
		if err != nil {
			return err
		}
		defer started.Close()
		etcd = "http://" + started.Clients[0].Addr().String()
	}
	server, token, err := newServer(data, encryption, etcd)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	prepared := server.PrepareRun()
	front := &http.Server{Handler: asLoopback(prepared.Handler, token)}
	go func() { _ = front.Serve(listener) }()
	told := map[string]string{"api": "http://" + listener.Addr().String(), "etcd": etcd}
	if err := json.NewEncoder(os.Stdout).Encode(told); err != nil {
		return err
	}
	err = prepared.RunWithContext(ctx)
	_ = front.Close()
	return err
}

// asLoopback lets every request be the server's own: who calls is not what is tested.
func asLoopback(handler http.Handler, token string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Set("Authorization", "Bearer "+token)
		handler.ServeHTTP(w, r)
	})
}

func startEtcd(dir string) (*embed.Etcd, error) {
	config := embed.NewConfig()
	config.Dir = dir
	config.LogLevel = "error"
	config.Logger = "zap"
	config.UnsafeNoFsync = true
	clients, err := freeAddress()
	if err != nil {
		return nil, err
	}
	peers := []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
	config.ListenClientUrls, config.AdvertiseClientUrls = clients, clients
	config.ListenPeerUrls, config.AdvertisePeerUrls = peers, peers
	config.InitialCluster = config.InitialClusterFromName(config.Name)
	started, err := embed.StartEtcd(config)
	if err != nil {
		return nil, err
	}
	select {
	case <-started.Server.ReadyNotify():
		return started, nil
	case err := <-started.Err():
		return nil, err
	case <-time.After(30 * time.Second):
		started.Close()
		return nil, errors.New("etcd does not start")
	}
}

// freeAddress answers a port that was free a moment ago: etcd's own gateway cannot find port 0.
func freeAddress() ([]url.URL, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	return []url.URL{{Scheme: "http", Host: listener.Addr().String()}}, nil
}

// newServer answers the API server and the token of its own loopback client.
func newServer(data, encryption, etcd string) (*genericapiserver.GenericAPIServer, string, error) {
	o := options.NewCustomResourceDefinitionsServerOptions(os.Stdout, os.Stderr)
	r := o.RecommendedOptions
	r.Etcd.StorageConfig.Prefix = "/registry"
	r.Etcd.StorageConfig.Transport.ServerList = []string{etcd}
	r.Etcd.EncryptionProviderConfigFilepath = encryption
	r.Etcd.EncryptionProviderConfigAutomaticReload = true
	r.SecureServing.BindAddress = net.IPv4(127, 0, 0, 1)
	r.SecureServing.BindPort = 0
	r.SecureServing.ServerCert.CertDirectory = filepath.Join(data, "tls")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	r.SecureServing.Listener = listener
	// There is no other API server to ask: nobody is looked up, no plugin of admission runs.
	nowhere, err := nowhereConfig(data)
	if err != nil {
		return nil, "", err
	}
	r.CoreAPI.CoreAPIKubeconfigPath = nowhere
	r.Authentication.RemoteKubeConfigFileOptional = true
	r.Authentication.SkipInClusterLookup = true
	r.Authorization.RemoteKubeConfigFileOptional = true
	r.Features.EnablePriorityAndFairness = false
	r.Admission.DisablePlugins = r.Admission.RecommendedPluginOrder
	if err := o.ServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return nil, "", err
	}
	if err := o.Complete(); err != nil {
		return nil, "", err
	}
	if err := o.Validate(); err != nil {
		return nil, "", err
	}
	config, err := o.Config()
	if err != nil {
		return nil, "", err
	}
	describeSecrets(config.GenericConfig)
	server, err := config.Complete().New(genericapiserver.NewEmptyDelegate())
	if err != nil {
		return nil, "", err
	}
	if err := installSecrets(server.GenericAPIServer, config.GenericConfig, o); err != nil {
		return nil, "", err
	}
	return server.GenericAPIServer, config.GenericConfig.LoopbackClientConfig.BearerToken, nil
}

// nowhereConfig writes a kubeconfig of an API server that is not there.
func nowhereConfig(data string) (string, error) {
	path := filepath.Join(data, "nowhere.kubeconfig")
	text := `apiVersion: v1
kind: Config
clusters: [{name: nowhere, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: nobody, user: {}}]
contexts: [{name: nowhere, context: {cluster: nowhere, user: nobody}}]
current-context: nowhere
`
	return path, os.WriteFile(path, []byte(text), 0o600)
}
