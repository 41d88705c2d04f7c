// Migrator is the part of kube-controller-manager that carries storage version migrations out: its
// own code for them, with the cache of its garbage collector, over the API server of a kubeconfig.
//
//	migrator --kubeconfig FILE
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/controller-manager/pkg/informerfactory"
	"k8s.io/kubernetes/pkg/controller/garbagecollector"
	svm "k8s.io/kubernetes/pkg/controller/storageversionmigrator"
)

// discoveryPeriod is shorter than that of kube-controller-manager, 30 seconds: tests wait for it.
const discoveryPeriod = time.Second

func main() {
	kubeconfig := flag.String("kubeconfig", "", "how the API server is reached")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, "migrator:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 500, 1000
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	metadataClient, err := metadata.NewForConfig(config)
	if err != nil {
		return err
	}
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client.Discovery()))
	typed := informers.NewSharedInformerFactory(client, 0)
	untyped := metadatainformer.NewSharedInformerFactory(metadataClient, 0)
	both := informerfactory.NewInformerFactory(typed, untyped)
	started := make(chan struct{})
	graph := garbagecollector.NewDependencyGraphBuilder(
		ctx, metadataClient, mapper, garbagecollector.DefaultIgnoredResources(), both, started)
	collector, err := garbagecollector.NewComposedGarbageCollector(ctx, client, metadataClient, mapper, graph)
	if err != nil {
		return err
	}
	controllers, err := migration(ctx, config, client, metadataClient, typed, mapper, graph)
	if err != nil {
		return err
	}
	typed.Start(ctx.Done())
	both.Start(ctx.Done())
	close(started)
	go wait.UntilWithContext(ctx, func(context.Context) { mapper.Reset() }, discoveryPeriod)
	go collector.Run(ctx, 1, 30*time.Second)
	go collector.Sync(ctx, client.Discovery(), discoveryPeriod)
	for _, controller := range controllers {
		go controller(ctx)
	}
	fmt.Println("migrator runs")
	<-ctx.Done()
	return nil
}

// migration makes the three controllers that kube-controller-manager runs for migrations.
func migration(
	ctx context.Context,
	config *rest.Config,
	client kubernetes.Interface,
	metadataClient metadata.Interface,
	typed informers.SharedInformerFactory,
	mapper *restmapper.DeferredDiscoveryRESTMapper,
	graph *garbagecollector.GraphBuilder,
) ([]func(context.Context), error) {
	dynamicClient, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	definitions, err := apiextensions.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	migrations := typed.Storagemigration().V1().StorageVersionMigrations()
	return []func(context.Context){
		svm.NewSVMController(
			ctx, client, dynamicClient, migrations, "storage-version-migrator", mapper, graph).Run,
		svm.NewResourceVersionController(
			ctx, client, client.Discovery(), metadataClient, migrations, mapper).Run,
		svm.NewCustomResourceController(
			ctx, client, migrations, definitions.ApiextensionsV1().CustomResourceDefinitions()).Run,
	}, nil
}
