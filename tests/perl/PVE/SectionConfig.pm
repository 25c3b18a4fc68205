package PVE::SectionConfig;

use strict;
use warnings;

sub register {
    my ($class) = @_;

    my ($data, $type) = ($class->private(), $class->type());
    die "duplicate plugin registration (type = $type)" if $data->{plugins}->{$type};
    $data->{plugindata}->{$type} = $class->plugindata();
    $data->{plugins}->{$type} = $class;
}

# Every property has one owner, every option a property.
sub init {
    my ($class) = @_;

    my $data = $class->private();
    my $list = $data->{propertyList};
    for my $type (sort keys %{ $data->{plugins} }) {
	my $props = $data->{plugins}->{$type}->properties();
	for my $name (keys %$props) {
	    die "duplicate property '$name'" if defined($list->{$name});
	    $list->{$name} = $props->{$name};
	}
    }
    for my $type (sort keys %{ $data->{plugins} }) {
	$data->{options}->{$type} = $data->{plugins}->{$type}->options();
	for my $name (keys %{ $data->{options}->{$type} }) {
	    die "undefined property '$name'" if !$list->{$name};
	}
    }
}

sub check_config {
    my ($class, $id, $config, $create, $skip) = @_;

    my $options = $class->private()->{options}->{ $class->type() };
    for my $name (keys %$config) {
	die "unexpected property '$name'\n" if !$options->{$name};
	die "can't change value of fixed parameter '$name'\n" if !$create && $options->{$name}->{fixed};
    }
    if ($create) {
	for my $name (keys %$options) {
	    die "missing value for required option '$name'\n"
		if !$options->{$name}->{optional} && !defined($config->{$name});
	}
    }
    return { %$config, ($create ? (type => $class->type()) : ()) };
}

1;
