# record.rb VAGRANTFILE: says, a line each, what a Vagrantfile configures, without Vagrant and its providers.

# Answers everything, and writes down what is set or called with arguments.
class Recorder
  def initialize(path)
    @path = path
  end

  def method_missing(name, *arguments, **options, &block)
    path = [@path, name.to_s.delete_suffix("=")].join(".")
    arguments += [options] unless options.empty?
    unless arguments.empty?
      path += "(#{arguments.first})" if block
      puts "#{path}: #{arguments.map(&:to_s).join(" ")}" unless block
    end
    return Recorder.new(path) unless block

    # A provider's block also gets what it overrides.
    block.call(Recorder.new(path), *([Recorder.new("#{path}.override")] if block.arity == 2))
  end

  def respond_to_missing?(*)
    true
  end
end

# In place of Vagrant's.
module Vagrant
  def self.configure(version)
    yield Recorder.new("v#{version}")
  end
end

load ARGV.shift
